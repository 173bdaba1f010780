from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_fl.errors import SettingsError
from sglang_fl.settings import FrozenMapping, load_settings
from sglang_fl.settings.forms import plain
from tests.core.settings.samples import ORDERS, as_text, load_yaml, meaning

without_deadline = settings(deadline=None)
TRUE = ["1", "true", "yes", "on"]
FALSE = ["0", "false", "no", "off"]


@pytest.mark.parametrize(("texts", "value"), [(TRUE, True), (FALSE, False)])
def test_booleans_are_read_in_any_case(texts: list[str], value: bool) -> None:
    for text in (cased for word in texts for cased in (word, word.upper(), word.title())):
        assert load_settings({"SGLANG_FL_STRICT": text}).strict is value


@pytest.mark.parametrize("text", ["2", "maybe", "yess", "-1", "none"])
def test_anything_else_is_no_boolean(text: str) -> None:
    with pytest.raises(SettingsError, match="write true or false") as caught:
        load_settings({"SGLANG_FL_STRICT": text})
    assert repr(text) in caught.value.found


def test_prefer_and_log_level_are_read_in_any_case() -> None:
    loaded = load_settings({"SGLANG_FL_PREFER": "Vendor", "SGLANG_FL_LOG_LEVEL": "debug"})

    assert (loaded.prefer, loaded.log_level) == ("vendor", "DEBUG")


def test_names_keep_their_case() -> None:
    loaded = load_settings({"SGLANG_FL_OOT_BLACKLIST": "RMSNorm,rms_norm", "SGLANG_FL_PLATFORM": "Ascend"})

    assert (loaded.oot_blacklist, loaded.platform) == (("RMSNorm", "rms_norm"), "Ascend")


def test_blanks_around_values_and_trailing_separators_do_not_count() -> None:
    loaded = load_settings(
        {"SGLANG_FL_DENY_VENDORS": " cuda , ascend, ", "SGLANG_FL_PER_OP": " rms_norm = vendor | flagos ; "}
    )

    assert loaded.deny_vendors == ("cuda", "ascend")
    assert loaded.op_backends == {"rms_norm": ("vendor", "flagos")}


@without_deadline
@given(orders=ORDERS)
def test_orders_read_the_same_from_a_variable_and_from_yaml(orders: dict[str, list[str]]) -> None:
    from_text = load_settings({"SGLANG_FL_PER_OP": as_text(orders)})
    from_mapping = load_settings({}, (), [("dist", {"op_backends": orders})])

    assert from_text == from_mapping
    assert from_text.op_backends == meaning("op_backends", orders)


def test_order_in_yaml_may_be_one_text(tmp_path: Path) -> None:
    loaded = load_yaml(tmp_path, "op_backends: {rms_norm: vendor:cuda | flagos, silu_and_mul: reference}")

    assert loaded.op_backends == {"rms_norm": ("vendor:cuda", "flagos"), "silu_and_mul": ("reference",)}


@pytest.mark.parametrize(
    ("token", "remedy"),
    [
        ("vendr:cuda", "did you mean 'vendor:cuda'?"),
        ("imp:x", "did you mean 'impl:x'?"),
        ("referense", "did you mean 'reference'?"),
        ("Vendor", "did you mean 'vendor'?"),
        ("vendor:", "vendor:NAME"),
        ("impl:", "impl:NAME"),
        ("vendor:a b", "vendor:NAME"),
        ("cudnn", "use one of: flagos, reference, vendor"),
    ],
)
def test_malformed_token_is_told_with_the_nearest_form(token: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_PER_OP": f"silu_and_mul=flagos;rms_norm=vendor|{token}"})
    assert repr(token) in caught.value.found
    assert remedy in caught.value.do
    assert caught.value.asked == "op_backends.rms_norm.1 (SGLANG_FL_PER_OP)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rms_norm", "no '='"),
        ("rms_norm=", "nothing in it"),
        ("rms_norm= | ", "nothing in it"),
        ("=vendor", "no name"),
        ("rms_norm=vendor;rms_norm=flagos", "two orders for 'rms_norm'"),
    ],
)
def test_malformed_orders_are_told(text: str, found: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_PER_OP": text})
    assert found in caught.value.found


@pytest.mark.parametrize("text", ["RMSNorm RotaryEmbedding", "a|b", "a;b", "a=b"])
def test_list_parted_by_anything_but_commas_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match="separate names by commas"):
        load_settings({"SGLANG_FL_OOT_BLACKLIST": text})


def test_choice_that_is_misspelt_is_told_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"SGLANG_FL_TRACE": "calls,selects"})
    assert "'selects'" in caught.value.found
    assert caught.value.do == "did you mean 'select'?"


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ("oot_blacklist:", "the empty one is []"),
        ("trace: 3", "the empty one is []"),
        ("deny_vendors: [3]", "in quotes"),
        ("op_backends: [vendor]", "the empty one is {}"),
        ("op_backends: {rms_norm: [vendor: cuda]}", "in quotes"),
        ("platform: yes", "in quotes"),
        ("strict: [true]", "true or false"),
        ("trace_dir: 2020-01-01", "write a path"),
        ("log_level: 10", "DEBUG"),
    ],
)
def test_value_of_a_wrong_type_is_told_in_the_terms_of_yaml(content: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, content)
    assert f"({tmp_path / 'my.yaml'}: {content.split(':', maxsplit=1)[0]})" in caught.value.asked
    assert remedy in caught.value.do


@without_deadline
@given(items=st.dictionaries(st.text(), st.integers()))
def test_frozen_mapping_is_an_unchanging_hashable_picklable_mapping(items: dict[str, int]) -> None:
    frozen = FrozenMapping(items)

    assert frozen == items
    assert hash(frozen) == hash(FrozenMapping(dict(reversed(items.items()))))
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    with pytest.raises(TypeError):
        frozen["x"] = 1  # type: ignore[index]


@without_deadline
@given(items=st.frozensets(st.text()))
def test_set_is_shown_in_order(items: frozenset[str]) -> None:
    assert plain(items) == sorted(items)
