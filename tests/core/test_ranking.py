from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import strategies as st

from sglang_fl.errors import DispatchError
from sglang_fl.policy import SelectionPolicy, matches
from sglang_fl.ranking import Candidate, Selection, select
from sglang_fl.records import BackendImplKind

from .samples import candidate, for_all, run_python

OP, OTHER = "silu_and_mul", "gelu_and_mul"
VENDORS, IDS = ("acme", "zeta", "nova"), ("a", "b", "c", "d", "e", "f")
SAID_BY = {name: f"<{name}>" for name in ("prefer", "strict", "per_op_order", "allow_vendors", "deny_vendors")}
TOKENS = ("flagos", "vendor", "reference", *(f"vendor:{v}" for v in VENDORS), *(f"impl:{i}" for i in IDS))


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """No, one or many candidates; priorities meet often."""
    found = []
    for impl_id in draw(st.permutations(IDS))[: draw(st.integers(0, len(IDS)))]:
        kind = draw(st.sampled_from(BackendImplKind))
        vendors = st.sampled_from(VENDORS)
        found.append(
            candidate(
                impl_id,
                op=draw(st.sampled_from([OP, OP, OP, OTHER])),
                kind=kind,
                vendor=draw(vendors if kind is BackendImplKind.VENDOR else vendors | st.none()),
                priority=draw(st.none() | st.integers(0, 2)),
                unavailable=draw(st.sampled_from([None, None, "no driver"])),
            )
        )
    return found


some_vendors = st.lists(st.sampled_from(VENDORS), max_size=2)
policies = st.builds(
    SelectionPolicy,
    prefer=st.none() | st.sampled_from(BackendImplKind).map(str),
    strict=st.booleans(),
    per_op_order=st.fixed_dictionaries({}, optional={OP: st.lists(st.sampled_from(TOKENS), max_size=4)}),
    allow_vendors=st.none() | some_vendors,
    deny_vendors=some_vendors,
    said_by=st.just(SAID_BY),
)


def wanted(policy: SelectionPolicy) -> list[str]:
    """The tokens that the policy names for the op, if any."""
    return list(policy.order(OP)) or [token for token in (policy.prefer,) if token]


def rejecting(one: Candidate, policy: SelectionPolicy) -> set[str]:
    """Every setting or fact that stands against a candidate."""
    vendor = one.impl.vendor
    against = {
        "<deny_vendors>": vendor in policy.deny_vendors,
        "<allow_vendors>": None not in (vendor, policy.allow_vendors) and vendor not in (policy.allow_vendors or ()),
        "no driver": one.unavailable is not None,
        "<strict>": policy.strict
        and bool(wanted(policy))
        and not any(matches(one.impl, token) for token in wanted(policy)),
    }
    return {name for name, stands in against.items() if stands}


def place(one: Candidate, policy: SelectionPolicy) -> int:
    return min((i for i, token in enumerate(policy.order(OP)) if matches(one.impl, token)), default=99)


@for_all(candidates(), policies, st.randoms())
def test_the_answer_does_not_depend_on_the_order_in_which_plugins_offer(
    offered: list[Candidate], policy: SelectionPolicy, random: Any
) -> None:
    shuffled = random.sample(offered, len(offered))
    assert select(OP, shuffled, policy) == select(OP, offered, policy)


@for_all(candidates(), policies)
def test_every_candidate_of_the_op_has_one_verdict_and_ranks_count_from_1(
    offered: list[Candidate], policy: SelectionPolicy
) -> None:
    selection = select(OP, iter(offered), policy)
    mine = [one for one in offered if one.impl.op == OP]
    assert sorted(v.candidate.impl.impl_id for v in selection.verdicts) == sorted(one.impl.impl_id for one in mine)
    ranks = [v.rank for v in selection.verdicts]
    serving = len(selection.ranked)
    assert ranks == [*range(1, serving + 1), *[None] * (len(mine) - serving)]


@for_all(candidates(), policies)
def test_exactly_what_nothing_stands_against_is_ranked(offered: list[Candidate], policy: SelectionPolicy) -> None:
    selection = select(OP, offered, policy)
    assert set(selection.ranked) == {one for one in offered if one.impl.op == OP and not rejecting(one, policy)}


@for_all(candidates(), policies)
def test_a_rejection_names_the_setting_or_the_fact_that_decided(
    offered: list[Candidate], policy: SelectionPolicy
) -> None:
    for verdict in select(OP, offered, policy).verdicts:
        if verdict.rank is None:
            assert any(name in verdict.reason for name in rejecting(verdict.candidate, policy))


@for_all(candidates(), policies)
def test_a_rank_names_the_setting_or_the_priority_that_decided(
    offered: list[Candidate], policy: SelectionPolicy
) -> None:
    for verdict in select(OP, offered, policy).verdicts:
        if verdict.rank is not None:
            one = verdict.candidate
            if place(one, policy) < 99:
                assert f"number {place(one, policy) + 1} in <per_op_order>" in verdict.reason
            elif one.impl.kind == policy.prefer:
                assert verdict.reason == "preferred by <prefer>"
            else:
                assert verdict.reason == f"priority {one.impl.priority}"


@for_all(candidates(), policies)
def test_the_users_order_goes_before_the_preference_before_priority_before_the_id(
    offered: list[Candidate], policy: SelectionPolicy
) -> None:
    for better, worse in pairwise(select(OP, offered, policy).ranked):
        places = place(better, policy), place(worse, policy)
        preferred = better.impl.kind == policy.prefer, worse.impl.kind == policy.prefer
        priorities = better.impl.priority or 0, worse.impl.priority or 0
        assert places[0] <= places[1]
        if places[0] == places[1]:
            assert preferred[0] >= preferred[1]
            if preferred[0] == preferred[1]:
                assert priorities[0] >= priorities[1]
                if priorities[0] == priorities[1]:
                    assert better.impl.impl_id < worse.impl.impl_id


@for_all(candidates(), policies)
def test_a_selection_without_a_candidate_left_says_why_of_each(
    offered: list[Candidate], policy: SelectionPolicy
) -> None:
    selection = select(OP, offered, policy)
    if selection.ranked:
        assert selection.require() == selection.ranked
        return
    with pytest.raises(DispatchError) as caught:
        selection.require()
    message = str(caught.value)
    assert OP in message
    assert all(f"{v.candidate.impl.impl_id}: {v.reason}" in message for v in selection.verdicts)
    assert selection.verdicts or "no plugin offers one" in message


@for_all(candidates(), policies)
def test_a_selection_in_plain_types_says_the_same(offered: list[Candidate], policy: SelectionPolicy) -> None:
    selection = select(OP, offered, policy)
    plain = json.loads(json.dumps(selection.as_dict()))
    assert plain["chosen"] == (selection.ranked[0].impl.impl_id if selection.ranked else None)
    assert [(v["impl_id"], v["rank"], v["reason"]) for v in plain["verdicts"]] == [
        (v.candidate.impl.impl_id, v.rank, v.reason) for v in selection.verdicts
    ]


def ids(selection: Selection) -> list[str]:
    return [one.impl.impl_id for one in selection.ranked]


def test_declared_priority_ranks_and_the_kind_does_not() -> None:
    offered = [
        candidate("low", kind=BackendImplKind.DEFAULT, priority=1),
        candidate("high", kind=BackendImplKind.REFERENCE, priority=2),
    ]
    assert ids(select(OP, offered, SelectionPolicy())) == ["high", "low"]


def test_the_default_order_of_the_kinds_is_flagos_vendor_reference() -> None:
    offered = [candidate(str(kind), kind=kind) for kind in reversed(BackendImplKind)]
    assert ids(select(OP, offered, SelectionPolicy())) == ["flagos", "vendor", "reference"]


def test_what_the_users_order_does_not_name_still_serves_after_it() -> None:
    offered = [candidate("a", priority=9), candidate("b", priority=1)]
    assert ids(select(OP, offered, SelectionPolicy(per_op_order={OP: ["impl:b"]}))) == ["b", "a"]


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (SelectionPolicy(), False),
        (SelectionPolicy(prefer="reference"), True),
        (SelectionPolicy(per_op_order={OP: ["reference"]}), True),
        (SelectionPolicy(prefer="reference", per_op_order={OP: ["vendor"]}), True),
        (SelectionPolicy(prefer="flagos", per_op_order={OP: ["vendor"]}), False),
    ],
)
def test_what_the_order_or_the_preference_names_was_asked_for(policy: SelectionPolicy, asked: bool) -> None:
    assert select(OP, [candidate("r", kind=BackendImplKind.REFERENCE)], policy).asked is asked


def test_strict_leaves_only_what_the_order_or_else_the_preference_names() -> None:
    offered = [candidate("v"), candidate("r", kind=BackendImplKind.REFERENCE)]
    order = {OP: ["reference"]}
    assert ids(select(OP, offered, SelectionPolicy(strict=True))) == ["v", "r"]
    assert ids(select(OP, offered, SelectionPolicy(strict=True, prefer="vendor"))) == ["v"]
    assert ids(select(OP, offered, SelectionPolicy(strict=True, prefer="vendor", per_op_order=order))) == ["r"]


def test_an_empty_allow_list_allows_no_vendor_and_touches_what_is_no_vendors() -> None:
    offered = [candidate("v"), candidate("r", kind=BackendImplKind.REFERENCE)]
    assert ids(select(OP, offered, SelectionPolicy(allow_vendors=()))) == ["r"]


def test_denying_goes_before_allowing() -> None:
    selection = select(OP, [candidate()], SelectionPolicy(allow_vendors=["acme"], deny_vendors=["acme"]))
    assert (ids(selection), "denied" in selection.verdicts[0].reason) == ([], True)


def test_the_answer_is_the_same_in_every_process() -> None:
    program = (
        "from sglang_fl.policy import SelectionPolicy\n"
        "from sglang_fl.ranking import Candidate, select\n"
        "from sglang_fl.records import BackendImplKind, OpImpl\n"
        "kind, op = BackendImplKind.VENDOR, 'silu_and_mul'\n"
        "impls = {OpImpl(op=op, impl_id=i, kind=kind, vendor=v, fn='m:f') for i, v in ('ax', 'bx', 'cy', 'dz')}\n"
        "policy = SelectionPolicy(deny_vendors={'y', 'z'}, said_by={'deny_vendors': 'X'})\n"
        "print(select(op, {Candidate(impl, 'p', 'd') for impl in impls}, policy).as_dict())"
    )
    answers = {run_python(program, PYTHONHASHSEED=seed).stdout for seed in ("0", "1", "2")}
    assert len(answers) == 1
    assert "'chosen': 'a'" in answers.pop()
