"""SGLang's group coordinators in the ranks that ``tests.ranks`` runs, and what their methods must give.

SGLang is imported in the functions: it takes 15 seconds, which ``PRELOAD`` spends once for all ranks.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOAD = "sglang.srt.distributed.parallel_state"

Case = Callable[[Any], tuple[Any, Any]]
"""Gives what the coordinator's method gives, and what it should."""


def start_session(site: Path | None, **variables: str) -> Any:
    """A session on the CPU, with the distributions in ``site`` and with ``SGLANG_FL_*`` set."""
    from sglang_fl.session import Session

    if site is not None:
        sys.path.insert(0, str(site))
    settings = {"PLATFORM": "cpu", "DISABLED_PLUGINS": ",".join(own_backends()), **variables}
    return Session.start({f"SGLANG_FL_{key}": value for key, value in settings.items()})


def own_backends() -> list[str]:
    """The plugins of this repository's backends, which a checkout installs: they have tests of their own."""
    installed = importlib.metadata.entry_points(group="sglang_fl")
    return [point.name for point in installed if point.dist is not None and point.dist.name.startswith("sglang-fl-")]


def coordinate(session: Any, ranks: Sequence[int] | None = None, name: str = "tp", **uses: bool) -> Any:
    """SGLang's coordinator of all ranks of the job, of the class that takes its place. It uses what ``uses`` says."""
    from sglang.srt.distributed.parallel_state import GroupCoordinator

    from sglang_fl.adapter.groups.coordinator import coordinator_class

    parameters = inspect.signature(GroupCoordinator.__init__).parameters
    return coordinator_class(session)(
        group_ranks=[[*range(dist.get_world_size())]] if ranks is None else [[*ranks]],
        local_rank=dist.get_rank(),
        torch_distributed_backend="gloo",
        group_name=name,
        **{flag: False for flag in parameters if flag.startswith("use_")} | uses,
    )


def run_cases(group: Any, names: Sequence[str]) -> dict[str, str]:
    """Runs the named cases in their order: name -> "ok", or what is wrong."""
    return {name: _run(CASES[name], group) for name in names}


def _run(case: Case, group: Any) -> str:
    try:
        got, wanted = case(group)
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    except Exception:
        return traceback.format_exc()
    return "ok"


def of(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What ``rank`` puts in."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) + 3 * rank) % 5).to(dtype).reshape(shape)


def of_all(group: Any, *shape: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [of(rank, *shape, dtype=dtype) for rank in range(group.world_size)]


def _sums() -> Iterator[tuple[str, Case]]:
    def all_reduce(group: Any, dtype: torch.dtype = torch.float32) -> Any:
        return group.all_reduce(of(group.rank_in_group, 4, 3, dtype=dtype)), sum(of_all(group, 4, 3, dtype=dtype))

    def in_place_op(group: Any) -> Any:  # what SGLang's registered op calls
        mine = of(group.rank_in_group, 4, 3)
        group._all_reduce_in_place(mine)
        return mine, sum(of_all(group, 4, 3))

    def out_of_place_op(group: Any) -> Any:
        mine = of(group.rank_in_group, 4, 3)
        return (group._all_reduce_out_place(mine, "auto"), mine), (
            sum(of_all(group, 4, 3)),
            of(group.rank_in_group, 4, 3),
        )

    def reduce_scatter_tensor(group: Any) -> Any:
        output = torch.empty(2, 3)
        group.reduce_scatter_tensor(output, of(group.rank_in_group, 2 * group.world_size, 3))
        return output, _part(sum(of_all(group, 2 * group.world_size, 3)), group)

    def reduce_scatter_tensor_op(group: Any) -> Any:
        output = torch.empty(2, 3)
        group._reduce_scatter_tensor(output, of(group.rank_in_group, 2 * group.world_size, 3))
        return output, _part(sum(of_all(group, 2 * group.world_size, 3)), group)

    def along_dim(group: Any) -> Any:
        mine = of(group.rank_in_group, 3, 2 * group.world_size)
        wanted = _part(sum(of_all(group, 3, 2 * group.world_size)).t(), group).t()  # type: ignore[attr-defined]
        return group.reduce_scatter_along_dim(mine, dim=1), wanted

    def from_a_list(group: Any) -> Any:
        output = torch.empty(3)
        group.reduce_scatter(output, [of(group.rank_in_group + part, 3) for part in range(group.world_size)])
        ranks = range(group.world_size)
        return output, sum(of(rank + group.rank_in_group, 3) for rank in ranks)

    def uneven(group: Any, given: bool = True) -> Any:
        rows = [rank + 1 for rank in range(group.world_size)]
        output = torch.empty(rows[group.rank_in_group], 3) if given else None
        got = group.reduce_scatterv(of(group.rank_in_group, sum(rows), 3), output, rows)
        assert output is None or got is output
        return got, sum(of_all(group, sum(rows), 3)).split(rows)[group.rank_in_group]  # type: ignore[attr-defined]

    def even(group: Any) -> Any:
        got = group.reduce_scatterv(of(group.rank_in_group, 2 * group.world_size, 3))
        return got, _part(sum(of_all(group, 2 * group.world_size, 3)), group)

    yield "all_reduce", all_reduce
    yield "all_reduce of integers", lambda group: all_reduce(group, torch.int32)
    yield "all_reduce by the registered op", in_place_op
    yield "all_reduce by the registered op, out of place", out_of_place_op
    yield "reduce_scatter_tensor", reduce_scatter_tensor
    yield "reduce_scatter_tensor by the registered op", reduce_scatter_tensor_op
    yield "reduce_scatter_along_dim", along_dim
    yield "reduce_scatter of a list", from_a_list
    yield "reduce_scatterv", uneven
    yield "reduce_scatterv, with the output to make", lambda group: uneven(group, given=False)
    yield "reduce_scatterv without sizes", even


def _gathers() -> Iterator[tuple[str, Case]]:
    def all_gather(group: Any, dim: int) -> Any:
        return group.all_gather(of(group.rank_in_group, 2, 3, 4), dim), torch.cat(of_all(group, 2, 3, 4), dim)

    def into_a_list(group: Any, sizes: Callable[[int], int] = lambda rank: 3) -> Any:
        outputs = [torch.empty(sizes(rank), 2) for rank in range(group.world_size)]
        assert (
            group.all_gather(of(group.rank_in_group, sizes(group.rank_in_group), 2), output_tensor_list=outputs) is None
        )
        return outputs, [of(rank, sizes(rank), 2) for rank in range(group.world_size)]

    def into_tensor(group: Any, method: str = "all_gather_into_tensor") -> Any:
        output = torch.empty(2 * group.world_size, 3)
        getattr(group, method)(output, of(group.rank_in_group, 2, 3))
        return output, torch.cat(of_all(group, 2, 3))

    def all_gatherv(group: Any) -> Any:
        rows = [rank + 1 for rank in range(group.world_size)]
        mine, wanted = of(group.rank_in_group, rows[group.rank_in_group], 3), [of(r, n, 3) for r, n in enumerate(rows)]
        output = torch.empty(sum(rows), 3)
        (given,) = group.all_gatherv(mine, sizes=rows, output=output)
        assert given is output
        return (given, *group.all_gatherv(mine, sizes=rows)), (torch.cat(wanted),) * 2

    def several(group: Any) -> Any:
        rows = [2 * (rank != 0) for rank in range(group.world_size)]
        count = rows[group.rank_in_group]
        mine = [of(group.rank_in_group, count, 3), of(group.rank_in_group, count, dtype=torch.int16)]
        wanted = [
            torch.cat([of(rank, n, 3) for rank, n in enumerate(rows)]),
            torch.cat([of(rank, n, dtype=torch.int16) for rank, n in enumerate(rows)]),
        ]
        return group.all_gatherv(mine, sizes=rows), wanted

    def gather(group: Any) -> Any:
        last = group.world_size - 1
        got = group.gather(of(group.rank_in_group, 2, 3), dst=last, dim=-1)
        return (got, torch.cat(of_all(group, 2, 3), -1)) if group.rank_in_group == last else (got is None, True)

    for dim in (0, 1, -1):
        yield f"all_gather along {dim}", lambda group, dim=dim: all_gather(group, dim)
    yield "all_gather into a list", into_a_list
    yield "all_gather into an uneven list", lambda group: into_a_list(group, lambda rank: rank + 1)
    yield "all_gather_into_tensor", into_tensor
    yield "all_gather_into_tensor by the registered op", lambda group: into_tensor(group, "_all_gather_into_tensor")
    yield "all_gatherv", all_gatherv
    yield "all_gatherv of several", several
    yield "gather", gather


def _transfers() -> Iterator[tuple[str, Case]]:
    def all_to_all(group: Any, method: str = "all_to_all_single") -> Any:
        output = torch.empty(2 * group.world_size, 3)
        getattr(group, method)(output, of(group.rank_in_group, 2 * group.world_size, 3))
        return output, torch.cat([_part(theirs, group) for theirs in of_all(group, 2 * group.world_size, 3)])

    def broadcast(group: Any) -> Any:
        return group.broadcast(of(group.rank_in_group, 4, 3).t(), src=1), of(1, 4, 3).t()

    def around(group: Any) -> Any:
        """Even ranks send first, so that none waits for all."""
        mine = of(group.rank_in_group, 2, 3, dtype=torch.bool)
        before = (group.rank_in_group - 1) % group.world_size
        if group.rank_in_group == 0:
            group.send(mine)
            got = group.recv(mine.shape, mine.dtype)
        else:
            got = group.recv(mine.shape, mine.dtype, src=before)
            group.send(mine, dst=(group.rank_in_group + 1) % group.world_size)
        return got, of(before, 2, 3, dtype=torch.bool)

    def broadcast_dict(group: Any) -> Any:
        given = _dict(0) if group.rank_in_group == 0 else None
        return group.broadcast_tensor_dict(given, src=0), _dict(0)

    def dict_to_next(group: Any, asynchronous: bool) -> Any:
        before = (group.rank_in_group - 1) % group.world_size
        if group.rank_in_group == 0:
            works = group.send_tensor_dict(_dict(0), async_send=asynchronous)
            got = group.recv_tensor_dict()
        else:
            got = group.recv_tensor_dict(src=before)
            works = group.send_tensor_dict(_dict(group.rank_in_group), async_send=asynchronous)
        for each in works:
            each.work.wait()
        return got, _dict(before)

    def shared(group: Any) -> Any:
        """The receivers gather what each of them got a share of: here the group itself, as if it were its own peer."""
        before = (group.rank_in_group - 1) % group.world_size
        works = group.send_tensor_dict(_dict(0), all_gather_group=_Shifted(group), async_send=True)
        got = group.recv_tensor_dict(src=before, all_gather_group=group)
        for each in works:
            each.work.wait()
        return got, _dict(0)

    def ring(group: Any) -> Any:
        before = (group.rank_in_group - 1) % group.world_size
        return group.send_recv_tensor_dict(_dict(group.rank_in_group)), _dict(before)

    yield "all_to_all_single", all_to_all
    yield "all_to_all_single by the registered op", lambda group: all_to_all(group, "_all_to_all_single")
    yield "broadcast", broadcast
    yield "send and recv", around
    yield "broadcast_tensor_dict", broadcast_dict
    yield "send_tensor_dict", lambda group: dict_to_next(group, asynchronous=False)
    yield "send_tensor_dict, asynchronously", lambda group: dict_to_next(group, asynchronous=True)
    yield "send_tensor_dict, in shares", shared
    yield "send_recv_tensor_dict", ring


class _Shifted:
    """The receivers' group as the sender of their shares sees it: its rank is that of the next."""

    def __init__(self, group: Any) -> None:
        self.world_size, self.rank_in_group = group.world_size, (group.rank_in_group + 1) % group.world_size


def _compiled() -> Iterator[tuple[str, Case]]:
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, fullgraph=True, backend="aot_eager")

    def all_reduce(group: Any) -> Any:
        mine = of(group.rank_in_group, 4, 3)
        function = compiled(lambda tensor: group.all_reduce(tensor * 2) + 1)
        return function(mine), 2 * sum(of_all(group, 4, 3)) + 1

    def all_gather(group: Any) -> Any:
        function = compiled(lambda tensor: group.all_gather(tensor + 1, -1) * 2)
        return function(of(group.rank_in_group, 2, 3)), 2 * (torch.cat(of_all(group, 2, 3), -1) + 1)

    def reduce_scatter(group: Any) -> Any:
        function = compiled(lambda tensor: group.reduce_scatter_along_dim(tensor + 1, 0) * 2)
        mine, size = of(group.rank_in_group, 2 * group.world_size, 3), group.world_size
        return function(mine), 2 * (_part(sum(of_all(group, 2 * size, 3)), group) + size)

    def all_to_all(group: Any) -> Any:
        def exchange(tensor: torch.Tensor) -> torch.Tensor:
            output = torch.empty_like(tensor)
            group.all_to_all_single(output, tensor + 1)
            return output * 2

        wanted = torch.cat([_part(theirs, group) for theirs in of_all(group, 2 * group.world_size, 3)])
        return compiled(exchange)(of(group.rank_in_group, 2 * group.world_size, 3)), 2 * (wanted + 1)

    def broadcast(group: Any) -> Any:
        function = compiled(lambda tensor: group.broadcast(tensor + 1, 1) * 2)
        return function(of(group.rank_in_group, 4, 3)), 2 * (of(1, 4, 3) + 1)

    for case in (all_reduce, all_gather, reduce_scatter, all_to_all, broadcast):
        yield f"{case.__name__}, compiled", case


def _part(whole: Any, group: Any) -> torch.Tensor:
    """This rank's two rows of ``whole``."""
    rank = group.rank_in_group
    return whole[2 * rank : 2 * rank + 2]


def _dict(rank: int) -> dict[str, Any]:
    return {
        "hidden": of(rank, 4, 3),
        "number": rank,
        "mask": of(rank, 4, dtype=torch.bool),
        "strided": of(rank, 3, 4).t(),
        "empty": torch.empty(0, 3),
        "one": torch.tensor(rank),
    }


CASES: dict[str, Case] = {name: case for cases in (_sums, _gathers, _transfers, _compiled) for name, case in cases()}
