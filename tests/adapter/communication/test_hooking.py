"""SGLang's class of groups is replaced where a communicator goes before SGLang's own, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.adapter.communication.coordinators import PRELOAD, start_session
from tests.ranks import run_ranks

TARGET = "sglang.srt.distributed.parallel_state.GroupCoordinator"


def hooked(rank: int, variables: dict[str, str]) -> dict[str, Any]:
    """What SGLang makes its groups of when the hooks have been applied."""
    from sglang.srt.distributed import parallel_state
    from sglang.srt.plugins.hook_registry import HookRegistry

    from sglang_fl.adapter.hooks import _unreplaced, register_hooks

    own = parallel_state.GroupCoordinator
    session = start_session(None, OOT_ENABLED="0", **variables)
    register_hooks(session)
    before = _unreplaced(session)
    HookRegistry.apply_hooks()
    left = {"parallel_state": parallel_state.GroupCoordinator is own, "hooks": TARGET in HookRegistry._hooks}
    group = parallel_state.init_world_group([0, 1], rank, "gloo")
    pair = parallel_state.init_model_parallel_group([[0, 1]], rank, "gloo", use_pynccl=False, group_name="tp")
    alone = parallel_state.init_model_parallel_group([[0], [1]], rank, "gloo", use_pynccl=False, group_name="pp")
    served = {each.unique_name: getattr(each, "_served", None) is not None for each in (group, pair, alone)}
    pair.barrier()
    pair.destroy()
    return left | {
        "kept": isinstance(pair, own) and isinstance(pair, parallel_state.GroupCoordinator),
        "served": served,
        "before": before and str(before),
        "after": _unreplaced(session),
    }


def outcome(folder: Path, **variables: str) -> dict[str, Any]:
    first, second = run_ranks(hooked, 2, folder, variables, within=60, preload=PRELOAD)
    assert first.answer == second.answer is not None, first.log
    answer: dict[str, Any] = first.answer
    return answer


@pytest.mark.parametrize("variables", [{}, {"DIST_BACKEND": "gloo"}], ids=["nothing set", "SGLang's own"])
def test_without_a_communicator_to_go_first_sglang_is_untouched(variables: dict[str, str], tmp_path: Path) -> None:
    assert outcome(tmp_path, **variables) == {
        "parallel_state": True,
        "hooks": False,
        "kept": True,
        "served": {"world:0": False, "tp:0": False, "pp:0": False},
        "before": None,
        "after": None,
    }


def test_a_communicator_that_goes_first_serves_the_groups_of_several_ranks_but_the_worlds(tmp_path: Path) -> None:
    answer = outcome(tmp_path, DIST_BACKEND="torch")

    assert f"a hook on SGLang's {TARGET}; found SGLang did not apply it" in answer.pop("before")
    assert answer == {
        "parallel_state": False,
        "hooks": True,
        "kept": True,
        "served": {"world:0": False, "tp:0": True, "pp:0": False},
        "after": None,
    }


def replaced_by_another(rank: int) -> str:
    from sglang.srt.distributed import parallel_state
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from sglang_fl.adapter.hooks import _unreplaced, register_hooks

    session = start_session(None, OOT_ENABLED="0", DIST_BACKEND="torch")
    register_hooks(session)
    other = type("Other", (parallel_state.GroupCoordinator,), {})
    HookRegistry.register(TARGET, other, HookType.REPLACE)
    HookRegistry.apply_hooks()
    return str(_unreplaced(session))


def test_another_plugins_class_in_our_place_is_told(tmp_path: Path) -> None:
    (ended,) = run_ranks(replaced_by_another, 1, tmp_path, within=60, preload=PRELOAD)
    assert "see whether another plugin replaces it" in ended.answer
