from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglang_fl.communication.selection import (
    CommunicatorSelection,
    collect_communicators,
    own_backend,
    select_communicator,
)
from sglang_fl.errors import PluginError
from sglang_fl.hookspecs import hookimpl
from sglang_fl.plugins import Offer, Plugin, Plugins
from sglang_fl.records import Communicator, Platform
from sglang_fl.settings import load_settings
from tests.groups import CPU, selection


def record(name: str, **fields: Any) -> Communicator:
    return Communicator(name=name, create="acme:create", **fields)


def names(selected: CommunicatorSelection) -> list[str]:
    return [verdict.name for verdict in selected.order]


FAST, SLOW = record("fast", priority=120), record("slow", priority=50)
DENIED = record("denied", vendor="acme", priority=200)


@pytest.mark.parametrize(
    ("variables", "order"),
    [
        ({}, ["denied", "fast", "gloo", "slow"]),
        ({"DENY_VENDORS": "acme"}, ["fast", "gloo", "slow"]),
        ({"ALLOW_VENDORS": "other"}, ["fast", "gloo", "slow"]),
        ({"DIST_BACKEND": "slow"}, ["slow", "denied", "fast", "gloo"]),
        ({"DIST_BACKEND": "gloo"}, ["gloo", "denied", "fast", "slow"]),
        ({"DIST_BACKEND": "slow", "STRICT": "1"}, ["slow"]),
        ({"DIST_BACKEND": "gloo", "STRICT": "1"}, ["gloo"]),
        ({"STRICT": "1"}, ["denied", "fast", "gloo", "slow"]),
    ],
)
def test_what_the_user_names_goes_first_and_then_priorities_decide(variables: dict[str, str], order: list[str]) -> None:
    selected = selection(SLOW, FAST, DENIED, **variables)

    assert names(selected) == order
    assert [verdict.name for verdict in selected.contenders] == order[
        : order.index("gloo") if "gloo" in order else None
    ]
    assert {verdict.name for verdict in selected.verdicts} == {"denied", "fast", "gloo", "slow"}


def test_sglangs_own_goes_before_what_has_the_references_priority() -> None:
    assert names(selection(record("aaa", priority=50))) == ["gloo", "aaa"]
    assert names(selection(record("aaa", priority=51))) == ["aaa", "gloo"]


def test_what_is_not_available_keeps_its_place_and_says_why() -> None:
    selected = selection(record("broken", is_available=lambda: "no driver"), FAST)

    assert names(selected) == ["fast", "broken", "gloo"]
    rows = {row["communicator"]: (row["rank"], row["reason"]) for row in selected.as_dict()["verdicts"]}
    assert rows == {
        "fast": (1, "priority 120"),
        "broken": (None, "not available: no driver"),
        "gloo": (2, "SGLang's own"),
    }
    assert selected.as_dict()["chosen"] == "fast"


def test_whoever_a_setting_rejects_is_not_asked_whether_it_is_available() -> None:
    def never() -> bool:
        raise AssertionError

    selected = selection(record("denied", vendor="acme", is_available=never), DENY_VENDORS="acme")

    (rejected,) = (verdict for verdict in selected.verdicts if verdict.name == "denied")
    assert rejected.refused == "vendor acme is denied by SGLANG_FL_DENY_VENDORS"


def test_asking_that_raises_is_a_reason() -> None:
    def broken() -> bool:
        raise OSError("no bus")

    (verdict, _) = selection(record("broken", is_available=broken)).verdicts
    assert verdict.refused == "not available: asking raised OSError: no bus"


def test_the_rule_and_the_reasons_name_the_setting() -> None:
    named = selection(SLOW, DIST_BACKEND="slow", STRICT="1").as_dict()

    assert named["rule"] == "communicator slow from SGLANG_FL_DIST_BACKEND"
    assert [row["reason"] for row in named["verdicts"]] == [
        "named by SGLANG_FL_DIST_BACKEND",
        "strict (SGLANG_FL_STRICT), and SGLANG_FL_DIST_BACKEND names another",
    ]
    assert selection(SLOW).rule == "declared priority"


@given(st.permutations([SLOW, FAST, DENIED, record("other", priority=120)]))
def test_the_order_of_the_plugins_does_not_matter(records: list[Communicator]) -> None:
    assert selection(*records) == selection(SLOW, FAST, DENIED, record("other", priority=120))


@pytest.mark.parametrize(
    ("variables", "others"),
    [({"STRICT": "1"}, {}), ({"DIST_BACKEND": "slow"}, {}), ({"DENY_VENDORS": "a"}, {"ALLOW_VENDORS": "a"})],
)
def test_the_wish_tells_settings_apart(variables: dict[str, str], others: dict[str, str]) -> None:
    assert selection(SLOW, **variables).wish == selection(**variables).wish != selection(SLOW, **others).wish


def test_on_a_device_that_sglang_serves_its_own_is_torchs_default_for_it() -> None:
    cuda = Platform(name="cuda", device_type="cuda", is_available=lambda: True, in_tree=True)
    acme = Platform(name="acme", device_type="acme", is_available=lambda: True, in_tree=True, distributed_backend="acl")
    assert own_backend(cuda) == torch.distributed.Backend.default_device_backend_map["cuda"] == "nccl"
    assert own_backend(acme) == "acl"  # torch knows of no such device, until the vendor's package says so
    assert own_backend(CPU) == "gloo"


class Offering:
    """A plugin that offers communicators."""

    def __init__(self, *records: Communicator) -> None:
        self._records = records

    @hookimpl
    def sglang_fl_register_communicators(self, platform: Platform) -> list[Communicator]:
        return list(self._records)


def collected(*plugins: Offering) -> tuple[list[str], Plugins]:
    loaded = Plugins()
    for number, plugin in enumerate(plugins, start=1):
        loaded.add(Plugin(f"p{number}", f"p{number}-chip", "1"), plugin)
    return [offer.record.name for offer in collect_communicators(loaded, CPU, load_settings({}))], loaded


def test_every_plugins_communicators_are_collected() -> None:
    assert collected(Offering(FAST), Offering(SLOW, DENIED))[0] == ["fast", "slow", "denied"]


def test_two_communicators_of_one_name_are_an_error_naming_both_plugins() -> None:
    with pytest.raises(PluginError, match=r"p1-chip.*p2-chip.*one communicator 'fast'"):
        collected(Offering(FAST), Offering(FAST))


def test_a_plugin_that_takes_the_name_of_sglangs_own_is_left_out() -> None:
    offered, loaded = collected(Offering(record("gloo"), FAST), Offering(SLOW))

    assert offered == ["slow"]
    assert "a communicator 'gloo'; found that is what SGLang's own is called" in str(loaded.problems[0])


def test_the_default_plugins_communicator_serves_only_when_it_is_named() -> None:
    offers = collect_communicators(Plugins.load(), CPU, load_settings({}))

    assert [offer.record.name for offer in offers if offer.plugin.name == "reference"] == ["torch"]
    mine = [Offer(offer.record, offer.plugin) for offer in offers if offer.plugin.name == "reference"]
    assert select_communicator(mine, CPU, load_settings({})).contenders == ()
    named = select_communicator(mine, CPU, load_settings({"SGLANG_FL_DIST_BACKEND": "torch"}))
    assert [verdict.name for verdict in named.contenders] == ["torch"]
