"""One op's implementations for one dtype and device, best first, as one function; the new ones on probation.

On probation, what an implementation is given is copied first and what it answers is checked against the op's
contract. If it fails, the copies are put back and the next one takes the call; when that one can, the first is
quarantined, and when none can, the call was at fault. After one success an implementation's function is called as
it is, and its exceptions are the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from sglang_fl.errors import ContractError, DispatchError
from sglang_fl.ops import OpContract
from sglang_fl.ranking import Candidate
from sglang_fl.records import Answer, OpImpl, refusal

Function = Callable[..., Any]
Accepts = Callable[..., Answer]


class Key(NamedTuple):
    """What an implementation proves itself for."""

    op: str
    impl_id: str
    dtype: torch.dtype
    device: torch.device


def unloaded(*args: Any, **kwargs: Any) -> Any:
    """Stands for a function that is not imported yet."""
    msg = "an implementation was called that is not loaded"
    raise AssertionError(msg)


@dataclass
class Link:
    """One implementation and how it stands. Chains share it, so that it is proven once in a process.

    ``loaded`` gives the function of a record, imported when it is first asked for.
    """

    candidate: Candidate
    key: Key
    loaded: Callable[[OpImpl], Function]
    fn: Function = unloaded
    accepts: Accepts | None = None
    proven: bool = False
    quarantine: str | None = None
    _condemned: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def load(self) -> None:
        """Imports the function that is declared by its name. Raises whatever that import raises."""
        impl = self.candidate.impl
        fn, accepts = self.loaded(impl), impl.load_accepts()
        self.accepts = accepts if impl.graph_safe else outside_capture(accepts, self.key.device)
        self.fn = fn

    def refusal(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Why this call is not for it, or None."""
        if self.accepts is None:
            return None
        answer = self.accepts(*args, **kwargs)
        return None if answer is True else refusal(answer)

    def condemn(self, reason: str) -> bool:
        """Quarantines it. False when it is quarantined already: of threads that fail together, one reports."""
        if not self._condemned.acquire(blocking=False):  # never waits, so that a forked child cannot either
            return False
        self.quarantine, self.proven = reason, False
        return True


class Pass(NamedTuple):
    """Why a link did not serve a call; with an error, it tried and failed."""

    link: Link
    reason: str
    error: Exception | None = None


class Chain:
    """Calls the first link that accepts the call and works.

    Args:
        contract: the op's.
        links: best first.
        strict: a failure or a refusal of the first link is an error, not a reason to ask the next.
        report: told of each link that is quarantined, once.
    """

    def __init__(
        self, contract: OpContract, links: Sequence[Link], *, strict: bool, report: Callable[[Link], None]
    ) -> None:
        self._contract = contract
        self._links = tuple(links[:1] if strict else links)
        self._strict = strict
        self._report = report

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Serves one call. Raises DispatchError when no link is left that accepts it and works."""
        passes: list[Pass] = []
        for link in self._links:
            answer = self._ask(link, args, kwargs)
            if not isinstance(answer, Pass):
                for passed in passes:
                    if passed.error is not None:
                        self._quarantine(passed.link, passed.reason)
                return answer
            passes.append(answer)
        errors = [passed.error for passed in passes if passed.error is not None]
        raise self._exhausted(passes) from (errors[-1] if errors else None)

    def function(self) -> Function:
        """What to bind: the first link's own function once it is proven, asked before each call if it wants to be;
        this chain until then."""
        first = next((link for link in self._links if link.quarantine is None), None)
        if first is None or not first.proven:
            return self
        return first.fn if first.accepts is None else _accepting(first.accepts, first.fn, self)

    def _ask(self, link: Link, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What ``link`` answers, or a Pass."""
        if not link.proven:
            if link.fn is unloaded:
                self._load(link)
            if link.quarantine is not None:
                return Pass(link, link.quarantine)
            if not is_capturing(link.key.device):  # copies and checks have no place in a graph
                return self._prove(link, args, kwargs)
        reason = link.refusal(args, kwargs)
        return link.fn(*args, **kwargs) if reason is None else Pass(link, reason)

    def _load(self, link: Link) -> None:
        try:
            link.load()
        except (Exception, SystemExit) as error:  # an SDK may give up in its own way
            self._quarantine(link, f"cannot be loaded: {error!r}")

    def _prove(self, link: Link, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        arguments = self._contract.bind(args, kwargs)
        empty = arguments[self._contract.activations[0]].numel() == 0  # proves nothing, either way
        given: Snapshot | None = None
        try:
            reason = link.refusal(args, kwargs)
            if reason is not None:
                return Pass(link, reason)
            given = Snapshot(arguments[name] for name in self._contract.activations)
            result = link.fn(*args, **kwargs)
            self._check(link, arguments, result)
        except Exception as error:
            if given is not None:
                given.restore()
            if isinstance(error, torch.OutOfMemoryError):  # says nothing about the implementation
                raise
            return Pass(link, f"{type(error).__name__}: {error}", None if empty else error)
        # Another thread may have seen it fail meanwhile.
        link.proven = link.quarantine is None and not empty
        return result

    def _check(self, link: Link, arguments: Mapping[str, Any], result: Any) -> None:
        reason = self._contract.check(arguments, result)
        if reason is not None:
            raise ContractError(
                f"implementation {link.key.impl_id!r} of {link.candidate.distribution}",
                asked=f"{self._contract.name}{self._contract.signature}",
                found=reason,
                do=f"mend {link.candidate.distribution}, or deny this implementation",
            )

    def _quarantine(self, link: Link, reason: str) -> None:
        if link.condemn(reason):
            self._report(link)

    def _exhausted(self, passes: Sequence[Pass]) -> DispatchError:
        reasons = "; ".join(f"{passed.link.key.impl_id}: {passed.reason}" for passed in passes)
        return DispatchError(
            "sglang-fl-core",
            asked=f"a call of {self._contract.name}{' (strict: no fallback)' if self._strict else ''}",
            found=f"no implementation that serves it ({reasons or 'none is offered'})",
            do=f"allow another one, or see `sglang-fl explain {self._contract.name}`",
        )


def _accepting(accepts: Accepts, fn: Function, otherwise: Function) -> Function:
    """``fn`` where it accepts the call, ``otherwise`` where not."""

    def call(*args: Any, **kwargs: Any) -> Any:
        answer = accepts(*args, **kwargs)
        if answer is True or refusal(answer) is None:  # the first is faster
            return fn(*args, **kwargs)
        return otherwise(*args, **kwargs)

    return call


class Snapshot:
    """What tensors hold, to be put back in whatever mode autograd is."""

    def __init__(self, tensors: Iterable[torch.Tensor | None]) -> None:
        with torch.inference_mode():
            self._memory = [_memory(tensor) for tensor in tensors if tensor is not None]
            self._copies = [memory.clone() for memory in self._memory]

    def restore(self) -> None:
        """Puts it back."""
        with torch.inference_mode():
            for memory, copy in zip(self._memory, self._copies, strict=True):
                memory.copy_(copy)


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """All elements from the tensor's first to its last as one row: rows that overlap or have gaps are no matter."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((reach + 1 if tensor.numel() else 0,), (1,))


def outside_capture(accepts: Accepts | None, device: torch.device) -> Accepts:
    """``accepts`` for an implementation that must not be captured in a graph of ``device``."""

    def accepts_outside_capture(*args: Any, **kwargs: Any) -> Answer:
        if is_capturing(device):
            return "it is not graph-safe, and a graph is being captured"
        return True if accepts is None else accepts(*args, **kwargs)

    return accepts_outside_capture


def is_capturing(device: torch.device) -> bool:
    """Is the caller being compiled, or captured in a graph of ``device``?"""
    if torch.compiler.is_compiling():
        return True
    if device.type in ("cpu", "meta"):
        return False
    capturing = getattr(torch.get_device_module(device), "is_current_stream_capturing", None)
    return bool(capturing and capturing())
