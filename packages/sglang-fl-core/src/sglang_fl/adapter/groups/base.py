"""What SGLang's ``GroupCoordinator`` is given for a communicator: who serves a call is decided here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from sglang.srt.distributed.parallel_state import GroupCoordinator

from sglang_fl.adapter.groups.start import start_communicator
from sglang_fl.communication.served import ServedGroup
from sglang_fl.session import Session


class Base(GroupCoordinator):  # type: ignore[misc]
    """A group whose ranks have agreed on a communicator, or on SGLang's own."""

    session: ClassVar[Session]
    rank_in_group: int
    world_size: int
    _served: ServedGroup | None = None
    _in_sglang = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._served = start_communicator(self, self.session)

    def destroy(self) -> None:
        if self._served is not None:
            self._served.destroy()  # before the process groups, which it may stand on
            self._served = None
        super().destroy()

    def _taker(self, collective: str, tensor: torch.Tensor) -> ServedGroup | None:
        """The communicator's side where it takes this call; None where SGLang's own path does."""
        served = self._served
        if served is None or self._in_sglang or served.refusal(collective, tensor) is not None:
            return None
        return served

    def _sglang(self, method: Callable[..., Any], *args: Any) -> Any:
        """Calls SGLang's own ``method``. Whom that calls is not asked again: the decision is made and counted."""
        if self._served is None:
            return method(*args)
        outer, self._in_sglang = self._in_sglang, True
        try:
            return method(*args)
        finally:
            self._in_sglang = outer

    def _is_traced(self) -> bool:
        """Is torch.compile looking? What it sees must not depend on what is decided call by call."""
        return self._served is not None and torch.compiler.is_compiling()
