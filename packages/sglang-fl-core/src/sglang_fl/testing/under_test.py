"""One implementation of one op, as the suite calls it: its own function, and nothing between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky

from sglang_fl.ops import OpContract, contract_of
from sglang_fl.records import OpImpl, refusal
from sglang_fl.testing.calls import calls
from sglang_fl.testing.calls.call import Call, Given
from sglang_fl.testing.calls.space import Space, whole_space
from sglang_fl.testing.failure import Nonconformance

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EXAMPLES = 20
MEND = "mend the implementation, or let its accepts refuse such calls"


@dataclass
class Tally:
    """How many calls the subject was offered, and why it refused some."""

    offered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def refused(self) -> int:
        """The number of calls that it refused."""
        return sum(self.refusals.values())


@dataclass(frozen=True)
class Outcome:
    """What a call came to.

    Attributes:
        given: what the implementation was given, as it left it.
        results: what it answered; a tuple even for a single tensor.
    """

    given: Given
    results: tuple[Any, ...]


@dataclass
class OpUnderTest:
    """The subject of the tests of L3.

    Attributes:
        impl: its record.
        device: where tensors are made.
        dtypes: the dtypes that it claims.
        examples: how many calls are drawn for a test.
        distribution: whose it is, for messages.
        shrink: look for a simpler call when one fails.
        tally: counts the calls.
        notes: what a reader of the report should know of how it was tested.
    """

    impl: OpImpl
    device: torch.device = CPU
    dtypes: tuple[torch.dtype, ...] = DTYPES
    examples: int = EXAMPLES
    distribution: str = ""
    shrink: bool = True
    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)

    @property
    def op(self) -> str:
        """The op's name."""
        return self.impl.op

    @property
    def contract(self) -> OpContract:
        """The op's contract."""
        return contract_of(self.impl.op)

    @property
    def who(self) -> str:
        """The implementation, for messages."""
        return f"{self.impl.impl_id} of {self.op}{self.distribution and f' ({self.distribution})'}, on {self.device}"

    @cached_property
    def fn(self) -> Callable[..., Any]:
        """Its function."""
        return self.impl.load()

    @cached_property
    def accepts(self) -> Callable[..., Any] | None:
        """What says which calls it takes."""
        return self.impl.load_accepts()

    @property
    def space(self) -> Space:
        """The ordinary calls."""
        return whole_space(self.dtypes, self.device)

    def at_most(self, examples: int) -> OpUnderTest:
        """The same subject, drawing fewer calls: for large ones."""
        return replace(self, examples=min(self.examples, examples))

    def for_all(self, space: Space, check: Callable[[Call], None]) -> None:
        """Checks calls drawn from ``space``, the same ones every time. Skips the test when every one is refused."""
        offered, refused = self.tally.offered, self.tally.refused
        self.examine(space, check)
        offered, refused = self.tally.offered - offered, self.tally.refused - refused
        if 0 < offered == refused:
            reason = self.tally.refusals.most_common(1)[0][0]
            pytest.skip(f"accepts refuses all {offered} calls of this kind: {reason}")

    def examine(self, space: Space, check: Callable[[Call], None]) -> None:
        """As :meth:`for_all`, but calls that are all refused are no reason to skip."""

        def examined(call: Call) -> None:  # hypothesis passes what it draws by name
            check(call)

        test = settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink] if self.shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(given(call=calls(self.op, space))(examined))
        try:
            test()
        except Flaky as flaky:  # what failed once and then did not failed all the same: a race, or what a call left
            failures = getattr(flaky, "exceptions", ())
            raise (failures[0] if failures else flaky) from None

    def run(self, call: Call) -> Outcome | None:
        """Calls the implementation with a copy of ``call``, or answers None when it refuses.

        Raises Nonconformance for an answer that is illegal.
        """
        return self.run_given(call, call.on(self.device))

    def run_given(
        self, call: Call, given: Given, *, by_name: bool = False, fn: Callable[..., Any] | None = None
    ) -> Outcome | None:
        """As :meth:`run`, with a copy that is there already.

        Args:
            call: the call, for messages.
            given: the copy.
            by_name: pass the arguments by their names.
            fn: what to call in place of the implementation's own function.
        """
        args = () if by_name else (given.obj, *given.arguments.values())
        kwargs = {"obj": given.obj, **given.arguments} if by_name else {}
        with torch.inference_mode():
            if self._refuses(args, kwargs):
                return None
            answer = (fn or self.fn)(*args, **kwargs)
        illegal = self.contract.check(self.contract.bind(args, kwargs), answer)
        if illegal is not None:
            raise self.failure(call, illegal, f"answer as the contract says: {self.op}{self.contract.signature}")
        return Outcome(given, tuple(answer) if isinstance(answer, tuple | list) else (answer,))

    def failure(self, call: Call | str, found: str, do: str = MEND) -> Nonconformance:
        """The failure for ``call``."""
        return Nonconformance(self.who, asked=str(call), found=found, do=do)

    def _refuses(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        self.tally.offered += 1
        reason = None if self.accepts is None else refusal(self.accepts(*args, **kwargs))
        if reason is not None:
            self.tally.refusals[reason] += 1
        return reason is not None
