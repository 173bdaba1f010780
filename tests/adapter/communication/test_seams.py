"""Every release has the names that ``sglang_fl.adapter.groups`` stands on. Read from source, as in ``releases``."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version

import sglang_fl
from sglang_fl.adapter import seams
from tests.adapter.releases.sources import Sources, parameters
from tests.adapter.releases.wheels import RELEASES, source_folder

STATE = "sglang.srt.distributed.parallel_state"
OURS = "sglang_fl.adapter.groups.coordinator:ServedCoordinator"
NEW = {"send_recv_tensor_dict": "0.5.20"}
"""Methods of SGLang's that we replace, and that its first releases do not have."""


@pytest.fixture(params=RELEASES, scope="module")
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sources(release: str) -> Sources:
    return Sources(source_folder(release))


@pytest.mark.parametrize("seam", ["GROUP_COORDINATOR", "MAKE_GROUP"])
def test_the_target_of_each_seam_exists(sources: Sources, release: str, seam: str) -> None:
    assert sources.find(seams.at(getattr(seams, seam), Version(release))) is not None


@pytest.mark.parametrize("name", ["P2PWork", "TensorMetadata", "_split_tensor_dict", "_groups"])
def test_what_is_imported_is_there(sources: Sources, name: str) -> None:
    assert sources.find(f"{STATE}:{name}") is not None


def test_a_group_has_the_attributes_that_are_read(sources: Sources) -> None:
    read = {"unique_name", "ranks", "rank_in_group", "world_size", "local_rank", "device", "cpu_group", "device_group"}
    read |= {"pymscclpp_comm", "torch_symm_mem_comm", "pynccl_comm", "is_symmetric_memory_enabled"}
    assert read <= sources.attributes(f"{STATE}:GroupCoordinator")


def test_deterministic_inference_is_asked_for_where_sglang_does(sources: Sources) -> None:
    assert "SGLANG_ENABLE_DETERMINISTIC_INFERENCE" in sources.attributes("sglang.srt.environ:Envs")


def test_every_method_that_we_replace_takes_what_sglangs_takes(sources: Sources, release: str) -> None:
    theirs = sources.methods(f"{STATE}:GroupCoordinator")
    ours = Sources(Path(sglang_fl.__file__).parents[1]).methods(OURS)
    helpers = {"_taker", "_sglang", "_is_traced", "_after", "_before", "_rows", "_gathered", "_taker_of_all"}
    helpers |= {"_all_gather_list", "_broadcast_one", "_send_one", "_recv_one", "_exchange", "_group_of", "__init__"}
    replaced = ours.keys() - helpers

    assert len(replaced) > 20
    for name in replaced:
        if Version(NEW.get(name, "0")) <= Version(release):
            assert parameters(ours[name]) == parameters(theirs[name]), name


def test_pynccl_is_used_where_it_is_not_refused_until_sglang_asks_for_it(sources: Sources, release: str) -> None:
    function = sources.find(seams.at(seams.MAKE_GROUP, Version(release)))
    assert function is not None
    import ast

    asks = "supports_pynccl" in ast.unparse(function.node)
    assert asks is seams.at(seams.ASKS_FOR_PYNCCL, Version(release))
    assert "use_pynccl" in ast.unparse(function.node)
