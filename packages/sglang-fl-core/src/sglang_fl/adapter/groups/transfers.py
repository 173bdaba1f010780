"""The collectives that move tensors from one rank to others."""

from __future__ import annotations

import torch

from sglang_fl.adapter.groups import opaque
from sglang_fl.adapter.groups.base import Base


class Transfers(Base):
    """``all_to_all_single``, ``broadcast``, ``send`` and ``recv``, with SGLang's signatures."""

    def all_to_all_single(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002 - SGLang's name
        if self._is_traced():
            opaque.all_to_all(output, input, self.unique_name)
        elif (served := self._taker("all_to_all", input)) is None:
            self._sglang(super().all_to_all_single, output, input)
        else:
            served.all_to_all(output, input)

    def broadcast(self, input_: torch.Tensor, src: int = 0) -> torch.Tensor:
        if self._is_traced():
            opaque.broadcast(input_, src, self.unique_name)
        elif (served := self._taker("broadcast", input_)) is None:
            return self._sglang(super().broadcast, input_, src)
        else:
            served.broadcast(input_, src)
        return input_

    def send(self, tensor: torch.Tensor, dst: int | None = None) -> None:
        served = self._taker("send", tensor)
        if served is None:
            self._sglang(super().send, tensor, dst)
        else:
            served.send(tensor, self._after() if dst is None else dst)

    def recv(self, size: torch.Size, dtype: torch.dtype, src: int | None = None) -> torch.Tensor:
        if self._served is None:
            return super().recv(size, dtype, src)
        tensor = torch.empty(size, dtype=dtype, device=self._served.group.device)
        served = self._taker("send", tensor)  # asked as the sender asks
        if served is None:
            return self._sglang(super().recv, size, dtype, src)
        served.recv(tensor, self._before() if src is None else src)
        return tensor

    def _after(self) -> int:
        return (self.rank_in_group + 1) % self.world_size

    def _before(self) -> int:
        return (self.rank_in_group - 1) % self.world_size

    # --- what SGLang's registered op calls by the group's name ------------------------------------------------

    def _all_to_all_single(self, output: torch.Tensor, input: torch.Tensor) -> None:  # noqa: A002
        served = self._taker("all_to_all", input)
        if served is None:
            super()._all_to_all_single(output, input)
        else:
            served.all_to_all(output, input)
