"""Collectives that torch.compile does not look into: ops that find the group by its name, as SGLang's own do.

SGLang registers its ops for one device each, and none for the CPU; these are for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from sglang.srt.distributed import parallel_state

_LIBRARY = torch.library.Library("sglang_fl", "FRAGMENT")


def _define(schema: str, run: Callable[..., None]) -> Callable[..., None]:
    name = schema.partition("(")[0]
    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sglang_fl::{name}", lambda *arguments: None, lib=_LIBRARY)
    return getattr(torch.ops.sglang_fl, name).default  # type: ignore[no-any-return]


def _group(name: str) -> Any:
    group = parallel_state._groups[name]()
    if group is None:
        msg = f"the group {name} has been destroyed"
        raise ValueError(msg)
    return group


def _all_reduce(tensor: torch.Tensor, group: str) -> None:
    result = _group(group).all_reduce(tensor)
    if result is not tensor:  # SGLang's own may leave it as it is
        tensor.copy_(result)


def _all_gather(output: torch.Tensor, tensor: torch.Tensor, group: str) -> None:
    _group(group).all_gather_into_tensor(output, tensor)


def _reduce_scatter(output: torch.Tensor, tensor: torch.Tensor, group: str) -> None:
    _group(group).reduce_scatter_tensor(output, tensor)


def _all_to_all(output: torch.Tensor, tensor: torch.Tensor, group: str) -> None:
    _group(group).all_to_all_single(output, tensor)


def _broadcast(tensor: torch.Tensor, source: int, group: str) -> None:
    _group(group).broadcast(tensor, source)


all_reduce = _define("group_all_reduce(Tensor(a!) tensor, str group) -> ()", _all_reduce)
all_gather = _define("group_all_gather(Tensor(a!) output, Tensor tensor, str group) -> ()", _all_gather)
reduce_scatter = _define("group_reduce_scatter(Tensor(a!) output, Tensor tensor, str group) -> ()", _reduce_scatter)
all_to_all = _define("group_all_to_all(Tensor(a!) output, Tensor tensor, str group) -> ()", _all_to_all)
broadcast = _define("group_broadcast(Tensor(a!) tensor, int source, str group) -> ()", _broadcast)
