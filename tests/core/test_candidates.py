from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sglang_fl.candidates import collect_candidates
from sglang_fl.errors import PluginError
from sglang_fl.hookspecs import hookimpl
from sglang_fl.plugins import Plugin, Plugins
from sglang_fl.ranking import Candidate
from sglang_fl.records import OpImpl, Platform

from .samples import CPU, Spy, impl


def backend(*records: Any) -> Any:
    """A plugin's module that offers ``records``; what is callable is called to make its record."""

    class Backend:
        @hookimpl
        def sglang_fl_register_ops(self, platform: Platform) -> list[Any]:
            return [record() if callable(record) else record for record in records]

    return Backend()


def load(**backends: Any) -> Plugins:
    plugins = Plugins()
    for name, module in backends.items():
        plugins.add(Plugin(name, f"{name}-chip", "1.0"), module)
    return plugins


def collect(**backends: Any) -> tuple[Candidate, ...]:
    return collect_candidates(load(**backends), CPU)


GOOD = impl("vendor.good", vendor="good")


def test_each_candidate_knows_its_plugin_and_distribution() -> None:
    candidates = collect(acme=backend(impl(), impl(op="gelu_and_mul")), good=backend(GOOD))
    assert [(c.impl.impl_id, c.impl.op, c.plugin, c.distribution) for c in candidates] == [
        ("vendor.acme", "silu_and_mul", "acme", "acme-chip"),
        ("vendor.acme", "gelu_and_mul", "acme", "acme-chip"),
        ("vendor.good", "silu_and_mul", "good", "good-chip"),
    ]
    assert all(c.unavailable is None for c in candidates)


def test_the_platform_is_what_a_plugin_is_asked_for() -> None:
    asked: list[Platform] = []

    class Backend:
        @hookimpl
        def sglang_fl_register_ops(self, platform: Platform) -> list[OpImpl]:
            asked.append(platform)
            return []

    assert collect(acme=Backend()) == ()
    assert asked == [CPU]


@pytest.mark.parametrize(
    ("records", "parts"),
    [
        ([impl(), impl()], ["one implementation 'vendor.acme' of silu_and_mul", "several"]),
        ([impl(op="silu_mul")], ["the op 'silu_mul' (vendor.acme)", "no such op; did you mean 'silu_and_mul'?"]),
        ([impl(mutates=("x",))], ["overwriting 'x' in silu_and_mul", "it may overwrite nothing"]),
        ([impl(op="rms_norm", mutates=("obj",))], ["overwriting 'obj' in rms_norm", "only overwrite x, residual"]),
        (
            [impl(op="rotary_embedding", mutates=("query", "position_ids"))],
            ["overwriting 'position_ids' in rotary_embedding", "only overwrite query, key"],
        ),
        ([lambda: impl(priority=-1)], ["sglang_fl_register_ops", "priority is -1"]),
        ([lambda: impl(vendor=None)], ["sglang_fl_register_ops", "vendor is None"]),
        ([impl(), "text"], ["OpImpl records", "'text'"]),
    ],
)
def test_a_plugin_with_a_wrong_record_is_left_out_whole_and_the_rest_serves(
    records: list[Any], parts: list[str]
) -> None:
    plugins = load(acme=backend(impl("other", op="layer_norm"), *records), good=backend(GOOD))
    candidates = collect_candidates(plugins, CPU)
    assert [c.impl.impl_id for c in candidates] == ["vendor.good"]
    (problem,) = plugins.problems
    for part in ("plugin 'acme' of acme-chip 1.0", "SGLANG_FL_DISABLED_PLUGINS=acme", *parts):
        assert part in str(problem)


@pytest.mark.parametrize("op", ["rms_norm", "gemma_rms_norm"])
def test_what_an_op_may_overwrite_may_be_declared(op: str) -> None:
    assert len(collect(acme=backend(impl(op=op, mutates=("x", "residual"))))) == 1
    assert len(collect(acme=backend(impl(op="rotary_embedding", mutates=("query", "key"))))) == 1


def test_one_implementation_of_two_distributions_is_an_error_naming_both() -> None:
    with pytest.raises(PluginError) as caught:
        collect(acme=backend(impl("same")), good=backend(impl("same", vendor="good")))
    for part in ("plugin 'acme' of acme-chip 1.0", "plugin 'good' of good-chip 1.0", "'same' of silu_and_mul"):
        assert part in str(caught.value)
    assert "SGLANG_FL_DISABLED_PLUGINS=good" in caught.value.do


def test_one_id_may_serve_many_ops() -> None:
    assert len(collect(acme=backend(impl("same")), good=backend(impl("same", op="layer_norm")))) == 2


def test_a_broken_plugins_implementation_clashes_with_nobodys() -> None:
    assert len(collect(acme=backend(impl("same"), impl(op="nothing")), good=backend(impl("same", vendor="good")))) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(True, None), ("no driver", "no driver"), (False, "no reason given"), (OSError("x"), "asking raised OSError: x")],
)
def test_what_is_not_available_stays_a_candidate_with_its_reason(answer: Any, reason: str | None) -> None:
    def is_available() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    (candidate,) = collect(acme=backend(impl(is_available=is_available)))
    assert candidate.unavailable == reason


def test_availability_is_asked_once() -> None:
    spy = Spy(lambda: True)
    collect(acme=backend(impl(is_available=spy)))
    assert spy.calls == 1


def test_a_declared_function_is_not_imported() -> None:
    (candidate,) = collect(acme=backend(impl(fn="a_module_that_is_not:kernel")))
    assert candidate.unavailable is None


def test_a_plugin_that_is_no_module_may_be_any_object() -> None:
    @hookimpl
    def sglang_fl_register_ops(platform: Platform) -> list[OpImpl]:
        return [GOOD]

    assert len(collect(acme=SimpleNamespace(sglang_fl_register_ops=sglang_fl_register_ops))) == 1
