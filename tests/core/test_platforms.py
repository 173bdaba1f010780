from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from sglang_fl.errors import PlatformError
from sglang_fl.platforms import choose_platform, unavailability
from sglang_fl.plugins import Offer, Plugin
from sglang_fl.records import Platform


def offer(name: str, available: Any = True, priority: int = 100, distribution: str = "") -> Offer[Platform]:
    """A platform of the distribution ``<name>-chip``; ``available`` is its answer, or the exception that it raises."""

    def is_available() -> Any:
        if isinstance(available, BaseException):
            raise available
        return available

    record = Platform(name=name, device_type="x", is_available=is_available, priority=priority, in_tree=True)
    return Offer(record, Plugin(name, distribution or f"{name}-chip", "1"))


def choose(*offers: Offer[Platform], name: str | None = None) -> Offer[Platform]:
    return choose_platform(offers, name, "SGLANG_FL_PLATFORM")


def test_of_those_available_the_highest_priority_wins_whoever_is_asked_first() -> None:
    offers = [offer("cpu", priority=0), offer("low", priority=50), offer("high"), offer("highest", "no driver", 200)]
    assert {choose(*order).record.name for order in permutations(offers)} == {"high"}


def test_a_named_platform_wins_whatever_its_priority() -> None:
    assert choose(offer("cpu", priority=0), offer("acme"), name="cpu").record.name == "cpu"


def test_a_named_platform_is_the_only_one_that_is_asked() -> None:
    asked: list[str] = []
    record = Platform(name="acme", device_type="x", in_tree=True, is_available=lambda: bool(asked.append("acme")))
    choose(offer("cpu"), Offer(record, Plugin("acme", "acme-chip", "1")), name="cpu")
    assert asked == []


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(PlatformError, match=r"'ascnd' \(SGLANG_FL_PLATFORM\); found no such .*did you mean 'ascend'"):
        choose(offer("cpu"), offer("ascend"), name="ascnd")


def test_a_named_platform_that_is_not_available_is_an_error_with_its_reason() -> None:
    with pytest.raises(PlatformError, match=r"'acme' \(SGLANG_FL_PLATFORM\); found not available \(acme: no driver\)"):
        choose(offer("cpu"), offer("acme", "no driver"), name="acme")


def test_where_none_is_available_the_error_has_every_reason() -> None:
    with pytest.raises(PlatformError) as caught:
        choose(offer("one", "no driver"), offer("two", OSError("no /dev/two")), offer("two", False))
    for reason in ("one: no driver", "two: asking raised OSError: no /dev/two", "two: no reason given"):
        assert reason in str(caught.value)


@pytest.mark.parametrize("name", [None, "cpu"])
def test_where_none_is_offered_the_error_says_so(name: str | None) -> None:
    with pytest.raises(PlatformError, match=r"no such platform. To do: nothing is offered here"):
        choose(name=name)


@pytest.mark.parametrize("names", [("one", "two"), ("same", "same")])
def test_a_tie_is_an_error_that_names_both_distributions(names: tuple[str, str]) -> None:
    offers = [offer(name, distribution=f"chip-{i}") for i, name in enumerate(names)]
    with pytest.raises(PlatformError) as caught:
        choose(offer("cpu", priority=0), *offers)
    for part in (*names, "chip-0", "chip-1", "SGLANG_FL_DISABLED_PLUGINS"):
        assert part in str(caught.value)
    assert ("SGLANG_FL_PLATFORM" in str(caught.value)) == (names[0] != names[1])  # a name tells no namesakes apart


def test_naming_one_breaks_a_tie() -> None:
    assert choose(offer("one"), offer("two"), name="two").record.name == "two"


@pytest.mark.parametrize("name", [None, "acme"])
@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_platforms_of_one_name_the_one_that_is_there_is_chosen(name: str | None, reverse: bool) -> None:
    offers = [offer("acme", "old driver", 200, "acme-old"), offer("acme", distribution="acme-new")]
    assert choose(*offers[:: -1 if reverse else 1], name=name).plugin.distribution == "acme-new"


def test_of_two_platforms_of_one_name_the_higher_priority_wins() -> None:
    offers = [offer("acme", priority=1, distribution="acme-old"), offer("acme", distribution="acme-new")]
    assert choose(*offers, name="acme").plugin.distribution == "acme-new"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: True, None),
        (lambda: np.True_, None),
        (lambda: 1, None),
        (lambda: False, "no reason given"),
        (lambda: None, "no reason given"),
        (lambda: "", "no reason given"),
        (lambda: 0, "no reason given"),
        (lambda: "no driver", "no driver"),
        (lambda: 1 / 0, "asking raised ZeroDivisionError: division by zero"),
        (lambda: sys.exit("no licence"), "asking raised SystemExit: no licence"),
    ],
)
def test_what_is_not_available_has_a_reason(answer: Callable[[], Any], reason: str | None) -> None:
    assert unavailability(answer) == reason


def test_an_interrupt_is_no_reason() -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unavailability(interrupted)
