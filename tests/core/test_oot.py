from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl.layers import LAYER_NAMES, LAYERS
from sglang_fl.oot import layers_of, left_by_user, left_to_kernels
from sglang_fl.ops import CONTRACTS
from sglang_fl.policy import SelectionPolicy
from sglang_fl.ranking import select
from sglang_fl.records import Platform
from sglang_fl.settings import FrozenMapping, Origin, Settings
from tests.core.samples import candidate, reference

NAMES = st.lists(st.sampled_from([*LAYER_NAMES, *CONTRACTS]), unique=True).map(tuple)


def test_nothing_is_left_where_no_setting_says_so() -> None:
    assert {left for op in CONTRACTS for _, left in layers_of(op, Settings())} == {None}


@given(NAMES)
def test_layer_is_left_when_any_of_its_names_is_on_the_blacklist(listed: tuple[str, ...]) -> None:
    settings = Settings(oot_blacklist=listed)

    for names in ({"rms_norm", "RMSNorm"}, {"rms_norm", "RMSNorm", "Gemma3nRMSNorm"}):
        assert (left_by_user(names, settings) is not None) == bool(names & set(listed))


@given(NAMES)
def test_layer_is_left_when_none_of_its_names_is_on_a_whitelist_that_has_any(listed: tuple[str, ...]) -> None:
    settings = Settings(oot_whitelist=listed)
    names = {"rms_norm", "RMSNorm", "Gemma3nRMSNorm"}

    assert (left_by_user(names, settings) is not None) == (bool(listed) and not names & set(listed))


@pytest.mark.parametrize("switch", ["enabled", "oot_enabled"])
def test_every_layer_is_left_where_a_switch_is_off(switch: str) -> None:
    settings = Settings(**{switch: False}, origins=FrozenMapping({switch: Origin("environment", "SOMEWHERE")}))

    left = {reason for op in CONTRACTS for _, reason in layers_of(op, settings)}

    assert left == {f"{switch} is off (SOMEWHERE)"}


@pytest.mark.parametrize(
    ("in_tree", "policy", "left"),
    [
        (True, SelectionPolicy(), True),
        (True, SelectionPolicy(prefer="vendor"), True),
        (True, SelectionPolicy(prefer="reference"), False),
        (True, SelectionPolicy(per_op_order={"silu_and_mul": ["vendor", "reference"]}), False),
        (False, SelectionPolicy(), False),
    ],
)
def test_reference_ops_do_not_take_the_place_of_sglangs_kernels_unasked(
    in_tree: bool, policy: SelectionPolicy, left: bool
) -> None:
    platform = Platform(
        name="acme", device_type="cuda", is_available=lambda: True, in_tree=in_tree, total_memory=lambda index: 0
    )
    assert (left_to_kernels(select("silu_and_mul", [reference()], policy), platform) is not None) == left


def test_a_vendors_op_takes_the_place_of_sglangs_kernels() -> None:
    platform = Platform(name="acme", device_type="cuda", is_available=lambda: True, in_tree=True)
    assert left_to_kernels(select("silu_and_mul", [reference(), candidate()], SelectionPolicy()), platform) is None


def test_every_layer_of_every_op_is_named() -> None:
    named = {name for op in CONTRACTS for name, _ in layers_of(op, Settings())}

    assert named == set(LAYER_NAMES)
    assert {op for ops in LAYERS.values() for op in ops} == set(CONTRACTS)
