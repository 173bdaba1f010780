from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import count, pairwise
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import loads
from benchmarks.engines import ALONE, FLAGOS, VENDOR, Variant
from benchmarks.figures import Figures
from benchmarks.loads import LEAST_ROUNDS, WORKS, compare


class Machine:
    """What engines share. Whoever answers after another engine has answered takes longer, for so many answers."""

    def __init__(self, cold_seconds: float, cold_answers: int) -> None:
        self._cold_seconds, self._cold_answers = cold_seconds, cold_answers
        self._last, self._answers = "", 0

    def answer(self, engine: str, seconds: float) -> float:
        self._answers = self._answers + 1 if engine == self._last else 0
        self._last = engine
        return seconds + (self._cold_seconds if self._answers < self._cold_answers else 0.0)


class TimedEngine:
    """An engine that takes ``seconds`` for whatever it is asked."""

    def __init__(self, variant: Variant, name: str, machine: Machine, seconds: float) -> None:
        self.variant, self._name, self._machine, self._seconds = variant, name, machine, seconds
        self.cores: list[frozenset[int]] = []
        self.bound = [variant.serves]

    def run_on(self, cores: Collection[int]) -> None:
        self.cores.append(frozenset(cores))

    def timed(self, prompts: Any, new_tokens: int) -> float:
        return self._machine.answer(self._name, self._seconds)


def figures_of(
    capsys: pytest.CaptureFixture[str],
    variants: Sequence[Variant],
    seconds: Sequence[float],
    cold: float,
    cold_answers: int = 1,
) -> dict[str, float]:
    machine = Machine(cold, cold_answers)
    engines: list[Any] = [
        TimedEngine(variant, str(n), machine, its)
        for n, (variant, its) in enumerate(zip(variants, seconds, strict=True))
    ]
    capsys.readouterr()
    compare("run", engines, 1000, {}, Figures(), seconds=1.0)
    found = re.findall(r"^figure run\.(\S+) (\S+)", capsys.readouterr().out, re.MULTILINE)
    return {name: float(value) for name, value in found}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 4), seconds=st.floats(0.01, 1.0), cold=st.floats(0.0, 1.0), cold_answers=st.integers(0, 99))
def test_an_engine_as_fast_as_sglang_alone_keeps_all_wherever_in_the_order_it_is(
    count: int, seconds: float, cold: float, cold_answers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [Variant(f"other{n}") for n in range(count)]
    found = figures_of(capsys, [ALONE, *others], [seconds] * (count + 1), cold, cold_answers)
    assert {found[f"{other.name}.{work}.kept"] for other in others for work in WORKS} == {1.0}


def test_the_median_of_a_variants_engines_counts_and_what_the_slowest_keeps_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = figures_of(capsys, [ALONE, VENDOR] * 3, [0.4, 0.2, 0.5, 0.25, 0.8, 0.3], cold=0.1)
    for label, work in WORKS.items():
        assert found[f"alone.{label}"] == pytest.approx(work.tokens / 0.5, rel=1e-5)
        assert found[f"vendor.{label}.kept"] == pytest.approx(2.0)
        assert found[f"alone.{label}.slowest"] == pytest.approx(0.5)
        assert found[f"vendor.{label}.slowest"] == pytest.approx(2 / 3, rel=1e-5)


def test_of_one_engine_nothing_is_the_slowest(capsys: pytest.CaptureFixture[str]) -> None:
    found = figures_of(capsys, [ALONE, FLAGOS], [0.4, 0.2], cold=0.0)
    assert not [name for name in found if name.endswith(".slowest")]


def test_in_each_round_every_engine_runs_on_the_same_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = count()
    monkeypatch.setattr(loads, "fastest", lambda _: {next(tried)})
    engines: list[Any] = [TimedEngine(variant, variant.name, Machine(0.0, 0), 0.4) for variant in (ALONE, VENDOR)]
    compare("run", engines, 1000, {}, Figures(), seconds=6.0)
    alone, vendor = (engine.cores for engine in engines)
    assert alone == vendor
    assert len(alone) == 5 * len(WORKS)  # in each a first answer and two that count, of 0.4 s


def test_any_engine_may_be_the_first_of_a_round_but_the_last_of_the_round_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[TimedEngine] = []
    monkeypatch.setattr(loads, "fastest", lambda _: {0})
    monkeypatch.setattr(TimedEngine, "run_on", lambda engine, _: turns.append(engine))
    engines: list[Any] = [TimedEngine(ALONE, str(n), Machine(0.0, 0), 0.4) for n in range(3)]
    loads._in_turns(engines, [], 64, seconds=60.0)
    assert all(one is not other for one, other in pairwise([engines[-1], *turns]))
    assert {*turns[::3]} == {*turns[1::3]} == {*turns[2::3]} == {*engines}


def test_however_short_the_time_there_are_rounds_enough_to_choose_from() -> None:
    engine = TimedEngine(ALONE, "alone", Machine(0.0, 0), 0.4)
    compare("run", cast("list[Any]", [engine]), 1000, {}, Figures(), seconds=0.0)
    assert len(engine.cores) == LEAST_ROUNDS * len(WORKS)
