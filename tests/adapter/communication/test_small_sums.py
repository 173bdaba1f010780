from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_fl.adapter.groups.small_sums import kept_small_sums
from tests.adapter.releases.sources import Sources
from tests.adapter.releases.wheels import RELEASES, source_folder

ON_A_GPU = "meta"
"""What stands for a GPU here: any device but the CPU."""


def kernels(disabled: bool = False) -> Any:
    """SGLang's, for sums of up to 1 KB."""
    return SimpleNamespace(disabled=disabled, should_custom_ar=lambda tensor: tensor.nbytes <= 1024)


def coordinator(own: Any) -> Any:
    return SimpleNamespace(ca_comm=own)


def test_a_sum_that_sglang_has_a_kernel_for_stays_and_the_reason_says_how_to_change_that() -> None:
    kept = kept_small_sums(coordinator(kernels()), "acme", None)
    assert kept is not None
    assert "SGLANG_FL_DIST_BACKEND=acme" in (kept("all_reduce", torch.empty(256, device=ON_A_GPU)) or "")


@pytest.mark.parametrize(
    ("collective", "elements", "device"),
    [("all_reduce", 257, ON_A_GPU), ("all_gather", 256, ON_A_GPU), ("all_reduce", 256, "cpu")],
    ids=["large", "no sum", "on the CPU"],
)
def test_everything_else_is_the_communicators(collective: str, elements: int, device: str) -> None:
    kept = kept_small_sums(coordinator(kernels()), "acme", None)
    assert kept is not None
    assert kept(collective, torch.empty(elements, device=device)) is None


def test_kernels_that_are_switched_off_for_a_while_keep_nothing_meanwhile() -> None:
    own = kernels()
    kept = kept_small_sums(coordinator(own), "acme", None)
    assert kept is not None
    own.disabled = True
    assert kept("all_reduce", torch.empty(1, device=ON_A_GPU)) is None


@pytest.mark.parametrize(("own", "asked"), [(None, None), (kernels(), "acme")], ids=["no kernels", "asked for"])
def test_a_communicator_serves_every_sum_where_it_is_asked_for_or_sglang_has_no_kernels(own: Any, asked: Any) -> None:
    assert kept_small_sums(coordinator(own), "acme", asked) is None


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_asks_its_kernels_as_we_do(release: str) -> None:
    sources = Sources(source_folder(release))
    reduces = sources.methods("sglang.srt.distributed.parallel_state:GroupCoordinator")
    words = ast.unparse(reduces["_resolve_outplace_all_reduce_method"])
    assert "self.ca_comm.disabled" in words
    assert "self.ca_comm.should_custom_ar(input_)" in words
