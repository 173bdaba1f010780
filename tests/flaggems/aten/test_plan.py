from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from sglang_fl import AtenOp, SglangFlError
from sglang_fl.settings import Settings, load_settings
from sglang_fl_flaggems.aten.names import covered
from sglang_fl_flaggems.aten.plan import GemsOp, plan, unknown_defaults, wrong_and_wanted
from sglang_fl_flaggems.aten.table import Entry, Table

from .conftest import DECLARED, Given

KEYS = ("add.Tensor", "add_.Tensor", "mul.Tensor", "mm", "mm.out", "_softmax", "newer_op", "newer_op.out")
TABLE: Table = {key: Entry(key, ("softmax",) if key == "_softmax" else (key.partition(".")[0],)) for key in KEYS}
NAMES = ("add", "add_", "add.Tensor", "aten::mm", "mm.default", "mul", "softmax")


def has_op(key: str) -> bool:
    return not key.startswith("newer_op")


def replaced(settings: Settings) -> set[str]:
    return {row.name for row in plan(TABLE, settings, has_op) if row.replaced}


def on(**lists: str) -> Settings:
    variables = {f"SGLANG_FL_FLAGOS_{name.upper()}": text for name, text in lists.items() if text}
    return load_settings({"USE_FLAGGEMS": "1", **variables}, DECLARED)


def test_off_is_the_default_and_the_reason_for_every_op(given: Given) -> None:
    rows = plan(TABLE, given({}), has_op)
    assert [row.name for row in rows] == sorted(KEYS)
    assert {(row.replaced, row.reason) for row in rows} == {
        (False, "use_flaggems (default of sglang-fl-flaggems) is off")
    }


def test_on_replaces_all_that_this_pytorch_has() -> None:
    assert replaced(on()) == set(filter(has_op, KEYS))


@for_all(st.sets(st.sampled_from(NAMES)))
def test_a_blacklist_takes_away_just_what_a_whitelist_of_it_gives(names: set[str]) -> None:
    listed = {key for name in names for key in covered(name, TABLE)}
    blacklisted = replaced(on(blacklist=",".join(names)))
    assert blacklisted == set(filter(has_op, KEYS)) - listed
    if names:
        assert replaced(on(whitelist=",".join(names))) == listed


def test_every_reason_names_the_setting_that_decided(given: Given) -> None:
    def told(settings: Settings) -> dict[str, AtenOp]:
        return {row.name: row for row in plan(TABLE, settings, has_op)}

    whitelist = told(on(whitelist="add,softmax"))
    assert whitelist["add_.Tensor"].reason == "add in flagos_whitelist (SGLANG_FL_FLAGOS_WHITELIST)"
    assert whitelist["_softmax"] == GemsOp(
        name="_softmax",
        by="flag_gems.softmax",
        replaced=True,
        reason="softmax in flagos_whitelist (SGLANG_FL_FLAGOS_WHITELIST)",
        entry=TABLE["_softmax"],
    )
    assert whitelist["mm"].reason == "not in flagos_whitelist (SGLANG_FL_FLAGOS_WHITELIST)"
    assert whitelist["newer_op"].reason == "this PyTorch has no such op"
    blacklist = told(given({"USE_FLAGGEMS": "1"}, "flagos_blacklist: [aten::mm]"))
    assert blacklist["mm.out"].reason.startswith("aten::mm in flagos_blacklist (/")
    assert blacklist["add.Tensor"].reason == "use_flaggems (USE_FLAGGEMS)"


@pytest.mark.parametrize("key", ["flagos_whitelist", "flagos_blacklist"])
@pytest.mark.parametrize(
    ("name", "near"), [("ad", "'add'"), ("add.Scalar", "'add.Tensor'"), ("rms_norm", "op_backends")]
)
def test_a_name_that_means_nothing_is_an_error_with_the_nearest(given: Given, key: str, name: str, near: str) -> None:
    with pytest.raises(SglangFlError, match=rf"{name!r} in {key} \(.*my.yaml.*no function for an op.*{near}"):
        plan(TABLE, given({"USE_FLAGGEMS": "1"}, f"{key}: [mm, {name}]"), has_op)


def test_a_whitelist_of_what_this_pytorch_lacks_is_an_error_and_a_blacklist_of_it_is_none() -> None:
    with pytest.raises(SglangFlError, match=r"'newer_op' in flagos_whitelist .*this PyTorch has no such op"):
        plan(TABLE, on(whitelist="mm,newer_op"), has_op)
    assert replaced(on(blacklist="newer_op")) == replaced(on())


@pytest.mark.parametrize("whitelist", ["mm.out,mm.default,mm", "mm,mm.out", "mm,aten::mm"])
def test_a_name_whose_ops_others_have_named_too_is_no_error(whitelist: str) -> None:
    assert replaced(on(whitelist=whitelist)) == {"mm", "mm.out"}


def test_a_platforms_whitelist_may_name_what_this_pytorch_lacks(given: Given) -> None:
    settings = given({"USE_FLAGGEMS": "1"}, defaults={"flagos_whitelist": ["mm", "newer_op"]})
    assert replaced(settings) == {"mm", "mm.out"}


def test_a_platforms_defaults_may_name_what_another_flaggems_has(given: Given) -> None:
    settings = given({"USE_FLAGGEMS": "1"}, defaults={"flagos_blacklist": ["count_nonzero", "mul"]})
    assert "mul.Tensor" not in replaced(settings)
    assert "mm" in replaced(settings)
    (warning,) = unknown_defaults(TABLE, settings)
    assert warning == "flagos_blacklist (defaults of acme-chip: flagos_blacklist) names 'count_nonzero', " + (
        "for which this FlagGems has nothing"
    )


def test_a_platforms_whitelist_of_unknown_names_does_not_replace_everything(given: Given) -> None:
    settings = given({"USE_FLAGGEMS": "1"}, defaults={"flagos_whitelist": ["count_nonzero"]})
    assert replaced(settings) == set()


WRONG = {"mul.Tensor": "it does not broadcast", "mm.out": "it forgets to write"}


def test_what_flaggems_gets_wrong_stays_with_pytorch_and_the_reason_tells() -> None:
    rows = {row.name: row for row in plan(TABLE, on(), has_op, WRONG)}
    assert {name for name, row in rows.items() if row.replaced} == replaced(on()) - WRONG.keys()
    assert rows["mul.Tensor"].reason == "FlagGems gets it wrong: it does not broadcast"


def test_whoever_whitelists_what_is_wrong_gets_it_and_a_warning() -> None:
    rows = plan(TABLE, on(whitelist="mm,mul.Tensor"), has_op, WRONG)
    assert {row.name for row in rows if row.replaced} == {"mm", "mm.out", "mul.Tensor"}
    warnings = dict(zip(("mm.out", "mul.Tensor"), wrong_and_wanted(rows, WRONG), strict=True))
    assert warnings["mul.Tensor"] == (
        "mul.Tensor is replaced, as you ask (mul.Tensor in flagos_whitelist (SGLANG_FL_FLAGOS_WHITELIST)), "
        "but FlagGems gets it wrong: it does not broadcast"
    )


def test_a_platforms_whitelist_of_what_is_wrong_leaves_it_out(given: Given) -> None:
    settings = given({"USE_FLAGGEMS": "1"}, defaults={"flagos_whitelist": ["mul", "mm"]})
    assert {row.name for row in plan(TABLE, settings, has_op, WRONG) if row.replaced} == {"mm"}
