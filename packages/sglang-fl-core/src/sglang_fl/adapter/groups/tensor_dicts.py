"""Dicts of tensors: what SGLang's pipeline stages hand on.

What is no tensor, and the shapes, go as objects through the CPU group, as SGLang sends them. Of the tensors, those that
the communicator takes go through it, and the others where SGLang sends them. Both ends decide by dtype and device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from sglang.srt.distributed.parallel_state import P2PWork, TensorMetadata, _split_tensor_dict

from sglang_fl.adapter.groups.transfers import Transfers

TensorDict = dict[str, Any]


class TensorDicts(Transfers):
    """``broadcast_tensor_dict``, and dicts between two ranks, with SGLang's signatures.

    With an ``all_gather_group``, whose ranks hold the same tensors here and there, each sends its share, and the
    receivers gather the shares.
    """

    def broadcast_tensor_dict(
        self, tensor_dict: TensorDict | None = None, src: int = 0, group: Any = None, metadata_group: Any = None
    ) -> TensorDict | None:
        if self._served is None:
            return super().broadcast_tensor_dict(tensor_dict, src, group, metadata_group)  # type: ignore[no-any-return]
        if self.rank_in_group == src:
            metadata, tensors = _split_tensor_dict(tensor_dict)
            self.broadcast_object(metadata, src=src)
        else:
            tensor_dict = {
                key: _room(value) if isinstance(value, TensorMetadata) else value
                for key, value in self.broadcast_object(None, src=src)
            }
            _, tensors = _split_tensor_dict(tensor_dict)
        for tensor in filter(torch.Tensor.numel, tensors):
            self._broadcast_one(tensor, src)
        return tensor_dict

    def send_tensor_dict(
        self, tensor_dict: TensorDict, dst: int | None = None, all_gather_group: Any = None, async_send: bool = False
    ) -> list[P2PWork] | TensorDict:
        if self._served is None:
            return super().send_tensor_dict(tensor_dict, dst, all_gather_group, async_send)  # type: ignore[no-any-return]
        dst = self._after() if dst is None else dst
        metadata, tensors = _split_tensor_dict(tensor_dict)
        works = self.send_object(metadata, dst=dst, async_send=async_send)
        for tensor in filter(torch.Tensor.numel, tensors):
            work = self._send_one(_share(tensor, all_gather_group), dst)
            if async_send:
                works.append(work)
            else:
                work.work.wait()
        return works  # type: ignore[no-any-return]

    def recv_tensor_dict(self, src: int | None = None, all_gather_group: Any = None) -> TensorDict | None:
        if self._served is None:
            return super().recv_tensor_dict(src, all_gather_group)  # type: ignore[no-any-return]
        src = self._before() if src is None else src
        tensor_dict = dict(self.recv_object(src=src))
        for key, value in tensor_dict.items():
            if isinstance(value, TensorMetadata):
                room = _room(value, all_gather_group)
                self._recv_one(room, src)
                tensor_dict[key] = _whole(room, value, all_gather_group)
        return tensor_dict

    def send_recv_tensor_dict(
        self,
        send_tensor_dict: TensorDict,
        send_dst: int | None = None,
        recv_src: int | None = None,
        send_all_gather_group: Any = None,
        recv_all_gather_group: Any = None,
    ) -> TensorDict | None:
        """Both at once, so that in a ring nobody's sending waits for somebody else's."""
        if self._served is None:
            gatherers = (send_all_gather_group, recv_all_gather_group)
            return super().send_recv_tensor_dict(send_tensor_dict, send_dst, recv_src, *gatherers)  # type: ignore[no-any-return]
        dst = self._after() if send_dst is None else send_dst
        src = self._before() if recv_src is None else recv_src
        metadata, tensors = _split_tensor_dict(send_tensor_dict)
        works = self.send_object(metadata, dst=dst, async_send=True)
        tensor_dict = dict(self.recv_object(src=src))
        for work in works:
            work.work.wait()
        wanted = {key: value for key, value in tensor_dict.items() if isinstance(value, TensorMetadata)}
        rooms = {key: _room(value, recv_all_gather_group) for key, value in wanted.items()}
        self._exchange([_share(tensor, send_all_gather_group) for tensor in tensors], dst, [*rooms.values()], src)
        whole = {key: _whole(rooms[key], value, recv_all_gather_group) for key, value in wanted.items()}
        return tensor_dict | whole

    # --- one tensor ------------------------------------------------------------------------------------------

    def _broadcast_one(self, tensor: torch.Tensor, src: int) -> None:
        served = self._taker("broadcast", tensor)
        if served is None:
            dist.broadcast(tensor.contiguous(), self.ranks[src], group=self._group_of(tensor))
        else:
            served.broadcast(tensor, src)

    def _send_one(self, tensor: torch.Tensor, dst: int) -> P2PWork:
        served = self._taker("isend", tensor)
        if served is None:
            return P2PWork(dist.isend(tensor, self.ranks[dst], group=self._group_of(tensor)), tensor)
        return P2PWork(*served.isend(tensor, dst))

    def _recv_one(self, tensor: torch.Tensor, src: int) -> None:
        if tensor.numel() == 0:
            return
        served = self._taker("isend", tensor)  # asked as the sender asks
        if served is None:
            dist.irecv(tensor, self.ranks[src], group=self._group_of(tensor)).wait()
        else:
            served.recv(tensor, src)

    def _exchange(self, sent: Sequence[torch.Tensor], dst: int, rooms: Sequence[torch.Tensor], src: int) -> None:
        moves = [(tensor, dst, dist.isend) for tensor in sent] + [(room, src, dist.irecv) for room in rooms]
        asked = [(self._taker("send", tensor), tensor, peer, move) for tensor, peer, move in moves if tensor.numel()]
        left = [
            dist.P2POp(move, tensor, self.ranks[peer], group=self._group_of(tensor))
            for served, tensor, peer, move in asked
            if served is None
        ]
        works = dist.batch_isend_irecv(left) if left else []
        with nullcontext() if self._served is None else self._served.batch():
            for served, tensor, peer, move in asked:
                if served is not None:
                    (served.send if move is dist.isend else served.recv)(tensor, peer)
        for work in works:
            work.wait()

    def _group_of(self, tensor: torch.Tensor) -> dist.ProcessGroup:
        return self.cpu_group if tensor.is_cpu else self.device_group


def _is_shared(numel: int, gatherers: Any) -> bool:
    return gatherers is not None and numel % gatherers.world_size == 0


def _share(tensor: torch.Tensor, gatherers: Any) -> torch.Tensor:
    """What this rank sends of ``tensor``, contiguous, as ``torch.distributed`` wants it."""
    if not _is_shared(tensor.numel(), gatherers):
        return tensor.contiguous()
    return tensor.reshape(gatherers.world_size, -1)[gatherers.rank_in_group]


def _room(metadata: TensorMetadata, gatherers: Any = None) -> torch.Tensor:
    """Room for what this rank receives of a tensor."""
    numel = metadata.size.numel()
    size = (numel // gatherers.world_size,) if _is_shared(numel, gatherers) else metadata.size
    return torch.empty(size, dtype=metadata.dtype, device=metadata.device)


def _whole(room: torch.Tensor, metadata: TensorMetadata, gatherers: Any) -> torch.Tensor:
    """The tensor of which ``room`` has this rank's share."""
    if not room.numel() or not _is_shared(metadata.size.numel(), gatherers):
        return room.view(metadata.size)
    return gatherers.all_gather(room, dim=0).view(metadata.size)
