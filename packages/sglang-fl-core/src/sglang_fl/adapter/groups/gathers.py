"""The collectives that gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from sglang_fl.adapter.groups import opaque
from sglang_fl.adapter.groups.base import Base
from sglang_fl.communication.served import ServedGroup


class Gathers(Base):
    """Every ``all_gather``, and ``gather``, with SGLang's signatures."""

    def all_gather_into_tensor(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - SGLang's name
        if self._is_traced():
            opaque.all_gather(output, input, self.unique_name)
        elif (served := self._taker("all_gather", input)) is None:
            self._sglang(super().all_gather_into_tensor, output, input)
        else:
            served.all_gather(output, input)

    def all_gather(
        self, input_: torch.Tensor, dim: int = -1, output_tensor_list: list[torch.Tensor] | None = None
    ) -> torch.Tensor | None:
        if output_tensor_list is not None:
            return self._all_gather_list(input_, dim, output_tensor_list)
        served = None if self._is_traced() else self._taker("all_gather", input_)
        if served is None and not self._is_traced():
            return self._sglang(super().all_gather, input_, dim)
        output = input_.new_empty(self.world_size, *input_.shape)
        if served is None:
            opaque.all_gather(output, input_, self.unique_name)
        else:
            served.all_gather(output, input_)
        return output.flatten(0, 1) if dim % input_.dim() == 0 else torch.cat(output.unbind(), dim)

    def _all_gather_list(self, input_: torch.Tensor, dim: int, outputs: list[torch.Tensor]) -> torch.Tensor | None:
        sizes = [output.numel() for output in outputs]
        served = self._taker(_collective(sizes), input_)
        if served is None:
            return self._sglang(super().all_gather, input_, dim, outputs)
        whole = input_.new_empty(sum(sizes))
        _gather(served, whole, input_, sizes)
        for part, output in zip(whole.split(sizes), outputs, strict=True):
            output.copy_(part.view(output.shape))
        return None

    def all_gatherv(
        self,
        input_: torch.Tensor | list[torch.Tensor],
        sizes: Sequence[int] | None = None,
        output: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        inputs = [input_] if isinstance(input_, torch.Tensor) else input_
        if output is not None and len(inputs) != 1:
            msg = "all_gatherv can fill an output only with the parts of one tensor"
            raise ValueError(msg)
        served = self._taker_of_all(_collective(sizes or ()), inputs)
        if served is None:
            return self._sglang(super().all_gatherv, input_, sizes, output)  # type: ignore[no-any-return]
        outputs = [self._gathered(one, sizes, output) for one in inputs]
        with served.batch() if len(inputs) > 1 else nullcontext():
            for one, whole in zip(inputs, outputs, strict=True):
                rows = sizes or [one.shape[0]] * self.world_size
                _gather(served, whole, one, [count * math.prod(one.shape[1:]) for count in rows])
        return outputs

    def _gathered(self, one: torch.Tensor, sizes: Sequence[int] | None, output: torch.Tensor | None) -> torch.Tensor:
        rows = [one.shape[0]] * self.world_size if sizes is None else sizes
        shape = (sum(rows), *one.shape[1:])
        if len(rows) != self.world_size or rows[self.rank_in_group] != one.shape[0]:
            msg = f"rank {self.rank_in_group} has {one.shape[0]} rows for an all_gatherv of {list(rows)}"
            raise ValueError(msg)
        if output is not None and output.shape != shape:
            msg = f"all_gatherv gives the shape {shape}, not {tuple(output.shape)}"
            raise ValueError(msg)
        return one.new_empty(shape) if output is None else output

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        served = self._taker("send", input_)  # it is made of sends
        if served is None:
            return self._sglang(super().gather, input_, dst, dim)
        if self.rank_in_group != dst:
            served.send(input_, dst)
            return None
        parts = [input_ if rank == dst else input_.new_empty(input_.shape) for rank in range(self.world_size)]
        with served.batch():
            for rank, part in enumerate(parts):
                if rank != dst:
                    served.recv(part, rank)
        return torch.cat(parts, dim)

    def _taker_of_all(self, collective: str, tensors: Sequence[torch.Tensor]) -> ServedGroup | None:
        takers = [self._taker(collective, tensor) for tensor in tensors]
        return None if None in takers else takers[0]

    # --- what SGLang's registered op calls by the group's name ------------------------------------------------

    def _all_gather_into_tensor(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        served = self._taker("all_gather", input)
        if served is None:
            super()._all_gather_into_tensor(output, input)
        else:
            served.all_gather(output, input)


def _collective(sizes: Sequence[int]) -> str:
    return "all_gather" if len(set(sizes)) <= 1 else "all_gatherv"


def _gather(served: ServedGroup, whole: torch.Tensor, part: torch.Tensor, sizes: Sequence[int]) -> None:
    if _collective(sizes) == "all_gather":
        served.all_gather(whole, part)
    else:
        served.all_gatherv(whole, part, sizes)
