from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from sglang_fl.adapter.groups.small_sums import kept_small_sums
from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.tracing import Refusal
from tests.adapter.releases.sources import Sources
from tests.adapter.releases.wheels import RELEASES, source_folder

ON_A_GPU = "meta"
"""What stands for a GPU here: any device but the CPU."""


def kernels(disabled: bool = False) -> Any:
    """SGLang's, for sums of up to 1 KB."""
    return SimpleNamespace(disabled=disabled, should_custom_ar=lambda tensor: tensor.nbytes <= 1024)


def kept(*own: Any) -> list[Refusal | None]:
    """What each rank keeps, of a group whose ranks have these kernels."""
    store = HashStore()

    def of_rank(rank: int) -> Refusal | None:
        return kept_small_sums(SimpleNamespace(ca_comm=own[rank]), group(rank, len(own)), "acme", store)

    with ThreadPoolExecutor(len(own)) as pool:
        return list(pool.map(of_rank, range(len(own))))


def group(rank: int, size: int, timeout: float = 10) -> Group:
    nothing: Any = None
    return Group("tp:0", rank, tuple(range(size)), torch.device("cpu"), timeout, nothing, nothing, nothing)


def of_one(own: Any) -> Refusal:
    (keeps,) = kept(own)
    assert keeps is not None
    return keeps


def test_a_sum_that_sglang_has_a_kernel_for_stays_and_the_reason_says_how_to_change_that() -> None:
    for keeps in kept(kernels(), kernels()):
        assert keeps is not None
        assert "SGLANG_FL_DIST_BACKEND=acme" in (keeps("all_reduce", torch.empty(256, device=ON_A_GPU)) or "")


@pytest.mark.parametrize(
    ("collective", "elements", "device"),
    [("all_reduce", 257, ON_A_GPU), ("all_gather", 256, ON_A_GPU), ("all_reduce", 256, "cpu")],
    ids=["large", "no sum", "on the CPU"],
)
def test_everything_else_is_the_communicators(collective: str, elements: int, device: str) -> None:
    assert of_one(kernels())(collective, torch.empty(elements, device=device)) is None


def test_kernels_that_are_switched_off_for_a_while_keep_nothing_meanwhile() -> None:
    own = kernels()
    keeps = of_one(own)
    own.disabled = True
    assert keeps("all_reduce", torch.empty(1, device=ON_A_GPU)) is None


@pytest.mark.parametrize("lacking", [None, kernels(disabled=True)], ids=["none", "disabled"])
def test_where_one_rank_has_no_kernels_no_rank_keeps_anything(lacking: Any) -> None:
    assert kept(kernels(), lacking, kernels()) == [None, None, None]


def test_a_rank_that_does_not_say_is_named() -> None:
    with pytest.raises(CommunicatorError, match=r"no answer from rank 1 within 0\.1 s"):
        kept_small_sums(SimpleNamespace(ca_comm=kernels()), group(0, 2, timeout=0.1), "acme", HashStore())


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_asks_its_kernels_as_we_do(release: str) -> None:
    sources = Sources(source_folder(release))
    reduces = sources.methods("sglang.srt.distributed.parallel_state:GroupCoordinator")
    words = ast.unparse(reduces["_resolve_outplace_all_reduce_method"])
    assert "self.ca_comm.disabled" in words
    assert "self.ca_comm.should_custom_ar(input_)" in words
