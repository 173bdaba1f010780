from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from sglang_fl.dispatch import Dispatcher
from sglang_fl.errors import SettingsError
from sglang_fl.policy import SelectionPolicy, entered_policy, matches
from sglang_fl.records import BackendImplKind
from sglang_fl.settings import load_settings

from .samples import Spy, candidate, for_all, impl, reference, silu_and_mul

REFERENCE = SelectionPolicy(prefer="reference")
VENDOR = SelectionPolicy(prefer="vendor")
X = torch.ones(2, 4)


def test_outside_every_block_no_policy_is_entered() -> None:
    assert entered_policy() is None


def test_the_innermost_block_rules_and_leaving_it_gives_the_outer_one_back() -> None:
    with REFERENCE:
        with VENDOR:
            assert entered_policy() is VENDOR
        assert entered_policy() is REFERENCE
    assert entered_policy() is None


def test_a_block_names_the_policy_that_rules_it() -> None:
    with SelectionPolicy(strict=True) as policy:
        assert entered_policy() is policy


def test_one_policy_may_rule_nested_blocks() -> None:
    with REFERENCE, VENDOR:
        with REFERENCE:
            assert entered_policy() is REFERENCE
        assert entered_policy() is VENDOR
    assert entered_policy() is None


def test_an_exception_leaves_the_block_too() -> None:
    with pytest.raises(KeyError), REFERENCE:
        raise KeyError
    assert entered_policy() is None


def test_a_generators_block_that_ends_inside_another_leaves_that_one_in_force() -> None:
    def generator() -> Iterator[None]:
        with REFERENCE:
            yield

    blocks = generator()
    next(blocks)
    with VENDOR:
        next(blocks, None)  # the generator's block ends here
        assert entered_policy() is VENDOR
    assert entered_policy() is None


@for_all(st.permutations(range(4)))
def test_blocks_may_end_in_any_order(order: list[int]) -> None:
    policies = [SelectionPolicy(deny_vendors=[str(i)]) for i in range(4)]
    for policy in policies:
        policy.__enter__()
    for done, i in enumerate(order, start=1):
        policies[i].__exit__(None, None, None)
        left = [j for j in range(4) if j not in order[:done]]
        assert entered_policy() is (policies[left[-1]] if left else None)


def test_a_block_that_ends_in_another_context_does_no_harm() -> None:
    with REFERENCE:
        Context().run(REFERENCE.__exit__, None, None, None)  # as an asynchronous generator's may
        assert entered_policy() is REFERENCE


def test_other_threads_do_not_see_the_block() -> None:
    seen: list[object] = []
    with REFERENCE:
        thread = threading.Thread(target=lambda: seen.append(entered_policy()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_one_policy_may_rule_blocks_of_many_threads_at_once() -> None:
    barrier = threading.Barrier(8)

    def rule(i: int) -> bool:
        mine = (REFERENCE, VENDOR)[i % 2]
        for _ in range(50):
            barrier.wait(30)
            with mine:
                barrier.wait(30)
                if entered_policy() is not mine:
                    return False
            if entered_policy() is not None:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(rule, range(8)))


def test_tasks_that_take_turns_keep_their_own_block() -> None:
    async def rule(policy: SelectionPolicy | None) -> bool:
        with ExitStack() as stack:
            if policy is not None:
                stack.enter_context(policy)
            for _ in range(5):
                await asyncio.sleep(0)
                if entered_policy() is not policy:
                    return False
        return True

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*map(rule, (REFERENCE, VENDOR, None, REFERENCE)))

    assert asyncio.run(all_at_once()) == [True] * 4
    assert entered_policy() is None


def test_a_task_and_its_threads_inherit_the_block_they_are_started_in_and_leak_nothing() -> None:
    async def main() -> list[object]:
        with REFERENCE:
            task = asyncio.create_task(asyncio.to_thread(entered_policy))
        return [entered_policy(), await task]

    assert asyncio.run(main()) == [None, REFERENCE]


def test_a_block_rules_the_calls_and_resolutions_in_it_and_no_others() -> None:
    mine = Spy(silu_and_mul)
    dispatcher = Dispatcher([candidate(fn=mine), reference()], SelectionPolicy())
    own = reference().impl.load()
    assert dispatcher.resolve("silu_and_mul") is mine
    dispatcher.call("silu_and_mul", None, X)
    with REFERENCE:
        assert dispatcher.resolve("silu_and_mul") is own
        for _ in range(3):
            dispatcher.call("silu_and_mul", None, X)
        with VENDOR:
            dispatcher.call("silu_and_mul", None, X)
    dispatcher.call("silu_and_mul", None, X)
    assert mine.calls == 3


def test_the_settings_policy_rules_where_no_block_does() -> None:
    dispatcher = Dispatcher([candidate(), reference()], REFERENCE)
    assert dispatcher.select("silu_and_mul").ranked[0].impl.impl_id == "reference.torch"
    with SelectionPolicy():
        assert dispatcher.select("silu_and_mul").ranked[0].impl.impl_id == "vendor.acme"


def test_the_settings_make_a_policy_that_knows_where_each_word_came_from() -> None:
    policy = SelectionPolicy.of(
        load_settings({"SGLANG_FL_PREFER": "vendor", "SGLANG_FL_PER_OP": "rms_norm=impl:a|reference"})
    )
    assert policy == SelectionPolicy(prefer="vendor", per_op_order={"rms_norm": ["impl:a", "reference"]})
    assert policy.order("rms_norm") == ("impl:a", "reference")
    assert (policy.source("prefer"), policy.source("per_op_order")) == ("SGLANG_FL_PREFER", "SGLANG_FL_PER_OP")


SPELLINGS: list[dict[str, Any]] = [
    {"prefer": "vendor"},
    {"prefer": BackendImplKind.VENDOR},
    {"prefer": "vendor", "said_by": {"prefer": "somebody"}},
    {"prefer": "vendor", "deny_vendors": set(), "per_op_order": {}},
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_policies_that_want_the_same_are_equal_and_hash_alike(spelling: dict[str, Any]) -> None:
    assert SelectionPolicy(**spelling) == VENDOR
    assert hash(SelectionPolicy(**spelling)) == hash(VENDOR)
    assert SelectionPolicy(deny_vendors=["a", "b"]) == SelectionPolicy(deny_vendors=("b", "a", "b"))


FIELDS: list[dict[str, Any]] = [
    {},
    {"prefer": "flagos"},
    {"strict": True},
    {"allow_vendors": ()},
    {"deny_vendors": ["acme"]},
    {"per_op_order": {"rms_norm": ["vendor", "reference"]}},
    {"per_op_order": {"rms_norm": ["reference", "vendor"]}},
]


def test_policies_that_want_different_things_differ() -> None:
    assert len({SelectionPolicy(**fields) for fields in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize("fields", FIELDS)
def test_a_policy_survives_the_way_to_another_process(fields: dict[str, Any]) -> None:
    assert pickle.loads(pickle.dumps(SelectionPolicy(**fields))) == SelectionPolicy(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prefer": "vendr"}, r"prefer 'vendr'.*did you mean 'vendor'\?"),
        ({"prefer": 5}, r"prefer 5.*use one of: flagos, reference, vendor"),
        (
            {"per_op_order": {"rms_norm": ["vendr"]}},
            r"the token 'vendr' for rms_norm.*flagos, vendor, reference, vendor:NAME",
        ),
        ({"per_op_order": {"rms_norm": ["vendor:"]}}, r"the token 'vendor:' for rms_norm.*vendor:NAME or impl:ID"),
        ({"per_op_order": {"rms_norm": ["reference:torch"]}}, r"the token 'reference:torch' for rms_norm"),
        ({"per_op_order": {"rms_norm": ["impl"]}}, r"the token 'impl' for rms_norm"),
        ({"per_op_order": {"rms_norm": [5]}}, r"the token 5 for rms_norm"),
        ({"per_op_order": {"rms_norm": "vendor"}}, r"the order 'vendor' for rms_norm.*a list"),
        ({"per_op_order": {"rmsnorm": ["vendor"]}}, r"an order for the op 'rmsnorm'.*did you mean 'rms_norm'\?"),
        ({"per_op_order": "rms_norm=vendor"}, r"per_op_order 'rms_norm=vendor'.*a mapping"),
        ({"allow_vendors": "ascend"}, r"allow_vendors 'ascend'.*a list"),
        ({"deny_vendors": "ascend"}, r"deny_vendors 'ascend'.*a list"),
        ({"deny_vendors": None}, r"deny_vendors None.*a list"),
        ({"strict": "0"}, r"strict '0'.*True or False"),
    ],
)
def test_a_policy_refuses_what_it_cannot_mean(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"^SelectionPolicy: asked for {message}"):
        SelectionPolicy(**fields)


@pytest.mark.parametrize(
    ("token", "meant"),
    [
        ("vendor", {"v.acme", "v.other"}),
        ("vendor:acme", {"v.acme"}),
        ("vendor:acm", set()),
        ("impl:v.other", {"v.other"}),
        ("impl:v", set()),
        ("flagos", {"f"}),
        ("reference", {"r"}),
    ],
)
def test_a_token_means_what_it_names_and_nothing_like_it(token: str, meant: set[str]) -> None:
    impls = [
        impl("v.acme"),
        impl("v.other", vendor="other"),
        impl("f", kind=BackendImplKind.DEFAULT, vendor="acme"),
        impl("r", kind=BackendImplKind.REFERENCE),
    ]
    assert {one.impl_id for one in impls if matches(one, token)} == meant
