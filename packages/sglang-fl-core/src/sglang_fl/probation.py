"""One op's implementations for one dtype and device, best first, as one function; the new ones on probation.

On probation, what an implementation is given is copied first and what it answers is checked against the op's
contract. If it fails, the copies are put back, it is quarantined, and the next one takes the call. After one
success its function is called as it is, and its exceptions are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sglang_fl.errors import ContractError, DispatchError
from sglang_fl.ops import OpContract
from sglang_fl.ranking import Candidate
from sglang_fl.records import Answer

Function = Callable[..., Any]


class Key(NamedTuple):
    """What an implementation proves itself for."""

    op: str
    impl_id: str
    dtype: torch.dtype
    device: torch.device


@dataclass
class Link:
    """One implementation and how it stands. Chains share it, so that it is proven once in a process."""

    candidate: Candidate
    key: Key
    fn: Function
    accepts: Callable[..., Answer] | None
    proven: bool = False
    quarantine: str | None = None

    def refusal(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Why this call is not for it, or None."""
        answer = True if self.accepts is None else self.accepts(*args, **kwargs)
        return None if answer is True else str(answer or "no reason given")


class Chain:
    """Calls the first link that accepts the call and works.

    Args:
        contract: the op's.
        links: best first.
        strict: a failure or a refusal of the first link is an error, not a reason to ask the next.
        report: told of each link that fails, once.
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
        for link in self._links:
            if link.accepts is not None and link.accepts(*args, **kwargs) is not True:
                continue
            if link.proven:
                return link.fn(*args, **kwargs)
            if link.quarantine is None:
                worked, result = self._prove(link, args, kwargs)
                if worked:
                    return result
        raise self._exhausted(args, kwargs)

    def function(self) -> Function:
        """What to bind: the first link's own function once nothing can come between, this chain until then."""
        standing = [link for link in self._links if link.quarantine is None]
        if standing and standing[0].proven and standing[0].accepts is None:
            return standing[0].fn
        return self

    def _prove(self, link: Link, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bool, Any]:
        if is_capturing(link.key.device):  # copies and checks have no place in a graph
            return True, link.fn(*args, **kwargs)
        arguments = self._contract.bind(args, kwargs)
        given = [arguments[name] for name in self._contract.activations if arguments[name] is not None]
        copies = [tensor.clone() for tensor in given]
        try:
            result = link.fn(*args, **kwargs)
            self._check(link, arguments, result)
        except torch.OutOfMemoryError:  # says nothing about the implementation
            raise
        except Exception as error:
            for tensor, copy in zip(given, copies, strict=True):
                tensor.copy_(copy)
            link.quarantine = f"{type(error).__name__}: {error}"
            self._report(link)
            if self._strict:
                raise self._exhausted(args, kwargs) from error
            return False, None
        link.proven = True
        return True, result

    def _check(self, link: Link, arguments: Mapping[str, Any], result: Any) -> None:
        reason = self._contract.check(arguments, result)
        if reason is not None:
            raise ContractError(
                f"implementation {link.key.impl_id!r} of {link.candidate.distribution}",
                asked=f"{self._contract.name}{self._contract.signature}",
                found=reason,
                do=f"mend {link.candidate.distribution}, or deny this implementation",
            )

    def _exhausted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DispatchError:
        reasons = "; ".join(
            f"{link.key.impl_id}: {link.quarantine or link.refusal(args, kwargs)}" for link in self._links
        )
        return DispatchError(
            "sglang-fl-core",
            asked=f"a call of {self._contract.name}{' (strict: no fallback)' if self._strict else ''}",
            found=f"no implementation that serves it ({reasons or 'none is offered'})",
            do=f"allow another one, or see `sglang-fl explain {self._contract.name}`",
        )


def outside_capture(accepts: Callable[..., Answer] | None) -> Callable[..., Answer]:
    """``accepts`` for an implementation that must not be captured in a device graph."""

    def accepts_outside_capture(obj: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Answer:
        if is_capturing(x.device):
            return "it is not graph-safe, and a graph is being captured"
        return True if accepts is None else accepts(obj, x, *args, **kwargs)

    return accepts_outside_capture


def is_capturing(device: torch.device) -> bool:
    """Is the caller being compiled, or captured in a graph of ``device``?"""
    if torch.compiler.is_compiling():
        return True
    if device.type in ("cpu", "meta"):
        return False
    capturing = getattr(torch.get_device_module(device), "is_current_stream_capturing", None)
    return bool(capturing and capturing())
