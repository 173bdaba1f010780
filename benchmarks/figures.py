"""Figures: what a benchmark measured, each with the bound that it must keep.

A script makes one :class:`Figures`, adds to it as it measures, and ends with ``finish``::

    args = parser("What a bound op costs.").parse_args()
    figures = Figures(args.json)
    figures.add("dispatch.bound_op", 0.12, "us", at_most=0.2)
    figures.finish()
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from math import inf, isnan
from pathlib import Path
from typing import Any, NoReturn

VERSIONS_OF = (
    *("torch", "triton", "sglang", "sglang-kernel", "flag-gems"),
    *("sglang-fl-core", "sglang-fl-cuda", "sglang-fl-flaggems", "sglang-fl-flagcx"),
)


@dataclass(frozen=True)
class Figure:
    """One figure. ``bound`` is ``-`` where there is none, and ``ok`` is then true."""

    name: str
    value: float
    unit: str
    bound: str
    ok: bool

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "missed"
        return f"figure {self.name} {self.value:.6g} {self.unit} bound {self.bound} {verdict}"


class Figures:
    """The figures of one run, printed as they are added, and written to the JSON ``file``, if one is wanted."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._figures: list[Figure] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        equals: float | None = None,
    ) -> None:
        """Prints a figure, and keeps it. ``name`` and ``unit`` are single words; give one bound or none."""
        bound, ok = _judge(value, at_most, at_least, equals)
        self._figures.append(Figure(name, value, unit, bound, ok))
        print(self._figures[-1], flush=True)
        if self._file is not None:  # whoever is stopped keeps what was measured
            self._file.write_text(json.dumps(self._report(), indent=2) + "\n")

    def finish(self) -> NoReturn:
        """Exits: 1 when a bound was missed or there is no figure."""
        sys.exit(0 if self._figures and all(figure.ok for figure in self._figures) else 1)

    def _report(self) -> dict[str, Any]:
        return {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **_environment(),
            "figures": [asdict(figure) for figure in self._figures],
        }


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with ``--json FILE``, for a script to add to."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--json", type=file_to_write, metavar="FILE", help="write the figures to FILE as well")
    return result


def file_to_write(text: str) -> Path:
    """An argument's type: a file in a folder that is there. Whoever writes it has measured for minutes by then."""
    file = Path(text)
    if not file.parent.is_dir():
        msg = f"there is no folder {file.parent}"
        raise argparse.ArgumentTypeError(msg)
    return file


def some_of(*names: object) -> Callable[[str], list[str]]:
    """An argument's type: ``names`` with commas between, and no others."""
    allowed = [str(name) for name in names]

    def read(text: str) -> list[str]:
        asked = text.split(",")
        unknown = [name for name in asked if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such: {', '.join(unknown)}; there are {', '.join(allowed)}")
        return asked

    return read


def at_least(least: int) -> Callable[[str], int]:
    """An argument's type: a whole number that is no less."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            msg = f"{text} is less than {least}"
            raise argparse.ArgumentTypeError(msg)
        return value

    return whole_number


def seconds(text: str) -> float:
    """An argument's type: how long something is to take."""
    value = float(text)
    if not 0 < value < inf:
        msg = f"{text} is no length of time"
        raise argparse.ArgumentTypeError(msg)
    return value


def worst(values: Iterable[float]) -> float:
    """The largest, or not a number where one of them is none: ``max`` keeps that only if it comes first."""
    return max(values, key=lambda value: (isnan(value), value))


def _judge(value: float, at_most: float | None, at_least: float | None, equals: float | None) -> tuple[str, bool]:
    bounds = [
        (f"{sign}{bound:.6g}", kept)  # not a number keeps no bound
        for sign, bound, kept in (
            ("<=", at_most, at_most is not None and value <= at_most),
            (">=", at_least, at_least is not None and value >= at_least),
            ("==", equals, equals is not None and value == equals),
        )
        if bound is not None
    ]
    if len(bounds) > 1:
        msg = f"a figure has one bound, not {' and '.join(text for text, _ in bounds)}"
        raise ValueError(msg)
    return bounds[0] if bounds else ("-", True)


@cache
def _environment() -> dict[str, Any]:
    """What does not change while a script runs."""
    return {
        "command": _command(),
        "device": _device(),
        "cpu": _cpu(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in VERSIONS_OF}},
    }


def _command() -> str:
    """What to type to run this script again, in any checkout."""
    spec = sys.modules["__main__"].__spec__
    script = ["-m", spec.name] if spec is not None else [Path(sys.argv[0]).name]
    return shlex.join(["python", *script, *sys.argv[1:]])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    """The accelerator's name, or ``cpu``."""
    import torch  # noqa: PLC0415 - a script that measures start-up time must not have it loaded

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    name = getattr(torch.get_device_module(accelerator), "get_device_name", lambda: accelerator.type)
    return str(name())


def _cpu() -> str:
    """The processor's model, which ``platform`` does not tell on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
