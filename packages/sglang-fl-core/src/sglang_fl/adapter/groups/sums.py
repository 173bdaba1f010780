"""The collectives that add."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from sglang.srt.environ import envs

from sglang_fl.adapter.groups import opaque
from sglang_fl.adapter.groups.base import Base
from sglang_fl.communication.served import ServedGroup


class Sums(Base):
    """``all_reduce`` and every ``reduce_scatter``, with SGLang's signatures."""

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        if self._is_traced():
            opaque.all_reduce(input_, self.unique_name)
            return input_
        served = self._taker("all_reduce", input_)
        if served is None:
            return self._sglang(super().all_reduce, input_)
        served.all_reduce(input_)
        return input_

    def reduce_scatter_tensor(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - SGLang's name
        if self._is_traced():
            opaque.reduce_scatter(output, input, self.unique_name)
        elif envs.SGLANG_ENABLE_DETERMINISTIC_INFERENCE.get():
            super().reduce_scatter_tensor(output, input)  # which makes it of an all_reduce
        elif (served := self._taker("reduce_scatter", input)) is None:
            self._sglang(super().reduce_scatter_tensor, output, input)
        else:
            served.reduce_scatter(output, input)

    def reduce_scatter(self, output: torch.Tensor, input_list: Sequence[torch.Tensor]) -> torch.Tensor:
        sizes = [part.numel() for part in input_list]
        served = self._taker(_collective(sizes), output)
        if served is None:
            return self._sglang(super().reduce_scatter, output, input_list)
        _scatter(served, output, torch.cat([part.reshape(-1) for part in input_list]), sizes)
        return output

    def reduce_scatterv(
        self, input_: torch.Tensor, output: torch.Tensor | None = None, sizes: Sequence[int] | None = None
    ) -> torch.Tensor:
        if envs.SGLANG_ENABLE_DETERMINISTIC_INFERENCE.get():
            return super().reduce_scatterv(input_, output, sizes)
        rows = self._rows(input_, sizes)
        served = self._taker(_collective(rows), input_)
        if served is None:
            return self._sglang(super().reduce_scatterv, input_, output, sizes)
        shape = (rows[self.rank_in_group], *input_.shape[1:])
        if output is None:
            output = input_.new_empty(shape)
        elif output.shape != shape:
            msg = f"reduce_scatterv gives rank {self.rank_in_group} the shape {shape}, not {tuple(output.shape)}"
            raise ValueError(msg)
        _scatter(served, output, input_, [count * math.prod(shape[1:]) for count in rows])
        return output

    def _rows(self, whole: torch.Tensor, sizes: Sequence[int] | None) -> Sequence[int]:
        """How many rows of ``whole`` each rank gets."""
        rows = [whole.shape[0] // self.world_size] * self.world_size if sizes is None else sizes
        if len(rows) != self.world_size or sum(rows) != whole.shape[0]:
            msg = f"{whole.shape[0]} rows cannot go to {self.world_size} ranks as {list(rows)}"
            raise ValueError(msg)
        return rows

    # --- what SGLang's registered ops call by the group's name ------------------------------------------------

    def _all_reduce_in_place(self, input_: torch.Tensor) -> None:
        served = self._taker("all_reduce", input_)
        if served is None:
            super()._all_reduce_in_place(input_)
        else:
            served.all_reduce(input_)

    def _all_reduce_out_place(self, input_: torch.Tensor, outplace_all_reduce_method: str) -> torch.Tensor:
        served = self._taker("all_reduce", input_)
        if served is None:
            return super()._all_reduce_out_place(input_, outplace_all_reduce_method)
        output = input_.clone()
        served.all_reduce(output)
        return output

    def _reduce_scatter_tensor(self, output: torch.Tensor, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        served = self._taker("reduce_scatter", input)
        if served is None:
            return super()._reduce_scatter_tensor(output, input)
        served.reduce_scatter(output, input)
        return output


def _collective(sizes: Sequence[int]) -> str:
    return "reduce_scatter" if len(set(sizes)) == 1 else "reduce_scatterv"


def _scatter(served: ServedGroup, output: torch.Tensor, whole: torch.Tensor, sizes: Sequence[int]) -> None:
    if _collective(sizes) == "reduce_scatter":
        served.reduce_scatter(output, whole)
    else:
        served.reduce_scatterv(output, whole, sizes)
