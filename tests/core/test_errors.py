from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import strategies as st

from sglang_fl import errors
from sglang_fl.errors import SglangFlError, nearest

from .samples import for_all

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SglangFlError)]
NAMES = st.text(min_size=1, max_size=12)


@for_all(st.text(), st.text(), st.text(), st.text())
def test_the_message_has_all_four_parts(who: str, asked: str, found: str, do: str) -> None:
    message = str(SglangFlError(who, asked=asked, found=found, do=do))
    assert message == f"{who}: asked for {asked}; found {found}. To do: {do}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_survives_the_way_to_another_process(kind, copied) -> None:  # type: ignore[no-untyped-def]
    error = kind("plugin 'x'", asked="a", found="b", do="c")
    back = copied(error)
    assert type(back) is kind
    assert (back.who, back.asked, back.found, back.do) == ("plugin 'x'", "a", "b", "c")
    assert str(back) == str(error)


def test_every_error_is_an_ordinary_exception_with_one_root() -> None:
    assert len(KINDS) == 7
    assert all(issubclass(kind, Exception) and not issubclass(kind, SystemExit) for kind in KINDS)


@pytest.mark.parametrize(("name", "hint"), [("rmsnorm", "'rms_norm'"), ("silu_mul", "'silu_and_mul'")])
def test_a_misspelt_name_gets_its_nearest(name: str, hint: str) -> None:
    assert nearest(name, {"rms_norm": 1, "silu_and_mul": 2, "layer_norm": 3}) == f"did you mean {hint}?"


def test_a_name_near_to_none_gets_all_of_them_in_order() -> None:
    assert nearest("qqq", iter(("b", "a"))) == "use one of: a, b"


def test_where_nothing_is_offered_the_hint_says_so() -> None:
    assert nearest("x", ()) == "nothing is offered here"


@for_all(NAMES, st.sets(NAMES))
def test_a_hint_does_not_depend_on_the_order_of_the_names(name: str, valid: set[str]) -> None:
    assert nearest(name, sorted(valid)) == nearest(name, sorted(valid, reverse=True))
