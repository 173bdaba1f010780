"""The class that takes the place of SGLang's ``GroupCoordinator``."""

from __future__ import annotations

from sglang_fl.adapter.groups.gathers import Gathers
from sglang_fl.adapter.groups.sums import Sums
from sglang_fl.adapter.groups.tensor_dicts import TensorDicts
from sglang_fl.session import Session


class ServedCoordinator(Sums, Gathers, TensorDicts):
    """Each method asks whether the communicator takes the call; what it does not take, SGLang's own method serves.

    Objects, barriers and what SGLang fuses with a computation stay its own.
    """


def coordinator_class(session: Session) -> type[ServedCoordinator]:
    """The class with its session."""
    return type("GroupCoordinator", (ServedCoordinator,), {"session": session, "__doc__": ServedCoordinator.__doc__})
