"""SGLang engines in processes of their own, several on one GPU, so that what differs can be measured in turns."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cores import move
from benchmarks.figures import Figures
from benchmarks.inherited import inherited
from examples.bound import bound_rows, tracing
from sglang_fl.errors import SglangFlError

START_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 1200.0, 240.0, 20.0
LOG_CHARACTERS = 4000
"""How much of a log is told when an engine failed."""

Tokens = list[int]


@dataclass(frozen=True)
class Variant:
    """A way to serve: its name, sglang-fl's settings, which are environment variables, SGLang's arguments, and the
    implementation that its layers must be bound to, if it is to be asked."""

    name: str
    settings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[tuple[str, Any], ...] = ()
    serves: str | None = None


ALONE = Variant("alone", (("SGLANG_FL_ENABLED", "0"),))
VENDOR = Variant("vendor", serves="vendor.cuda")
FLAGOS = Variant("flagos", (("SGLANG_FL_PREFER", "flagos"),), serves="flagos.triton")
ATEN = Variant("aten", (*FLAGOS.settings, ("USE_FLAGGEMS", "1")), serves=FLAGOS.serves)
ATEN_BUT_MM = Variant("aten_but_mm", (*ATEN.settings, ("SGLANG_FL_FLAGOS_BLACKLIST", "mm")), serves=FLAGOS.serves)
"""FlagGems times variants of its ``mm`` for every number of tokens that a graph is captured for: that takes minutes."""


class EngineError(RuntimeError):
    """``engine`` gave no answer."""

    def __init__(self, engine: Engine, message: str) -> None:
        super().__init__(message)
        self.engine = engine


class Engine:
    """One engine. Starting returns at once; :meth:`wait` until it serves, and ``start_seconds`` is what that took."""

    def __init__(self, variant: Variant, arguments: Mapping[str, Any], log: Path) -> None:
        self.variant, self._log = variant, log
        # How long a dictionary takes to find a string depends on the seed, which Python draws for each process.
        os.environ.setdefault("PYTHONHASHSEED", "0")
        self._pipe, theirs = multiprocessing.Pipe()
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(
            target=_serve, args=(variant, {**arguments, **dict(variant.arguments)}, log, theirs)
        )
        self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Raises EngineError when the start failed, with the end of its log."""
        self.start_seconds: float = self._answer(START_SECONDS)
        self._processes = self._tree()

    @property
    def bound(self) -> list[str]:
        """What serves each class of its model's layers, if its variant is to be asked; nothing where no worker told."""
        try:
            return [row.implementation for row in bound_rows(_traces(self._log))]
        except SglangFlError:
            return []

    def generate(self, **request: Any) -> list[dict[str, Any]]:
        """SGLang's answers to a request."""
        answers = self.call("generate", **request)
        return answers if isinstance(answers, list) else [answers]

    def call(self, method: str, **arguments: Any) -> Any:
        """What a method of SGLang's ``Engine`` returns."""
        self._pipe.send((method, arguments))
        return self._answer(ANSWER_SECONDS)

    def timed(self, prompts: list[Tokens], new_tokens: int) -> float:
        """Seconds to answer ``prompts`` with exactly that many tokens each."""
        sampling = {"temperature": 0, "max_new_tokens": new_tokens, "ignore_eos": True}
        began = time.perf_counter()
        self.generate(input_ids=prompts, sampling_params=sampling)
        return time.perf_counter() - began

    def run_on(self, cores: Collection[int]) -> None:
        """Its processes run on these cores alone, from now on: those that it had when it began to serve."""
        for process in self._processes:
            move(process, cores)

    def host_memory(self) -> int:
        """Bytes of host memory of the engine's processes, without what files back: engines share that."""
        memory = [process.memory_info() for process in self._tree()]
        return sum(its.rss - its.shared for its in memory)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Frees what it holds of the GPU. Nothing can be asked of it any more."""
        self._pipe.close()
        self._process.join(STOP_SECONDS)
        if self._process.is_alive():
            for process in self._tree():  # SGLang's processes would go on without the one that started them
                process.kill()

    def _tree(self) -> list[psutil.Process]:
        engine = psutil.Process(self._process.pid)
        return [*engine.children(recursive=True), engine]

    def _answer(self, seconds: float) -> Any:
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
        except EOFError:
            pass
        end = self._log.read_text(errors="replace")[-LOG_CHARACTERS:] if self._log.exists() else ""
        msg = f"the engine {self.variant.name!r} gave no answer; its log is {self._log}, which ends\n{end}"
        raise EngineError(self, msg)


def start_all(stack: ExitStack, variants: list[Variant], arguments: Mapping[str, Any], logs: Path) -> list[Engine]:
    """Starts engines side by side, and waits for all of them. There may be several of a variant."""
    files = [logs / f"{variant.name}-{variants[:n].count(variant)}.log" for n, variant in enumerate(variants)]
    engines = [
        stack.enter_context(Engine(variant, arguments, file)) for variant, file in zip(variants, files, strict=True)
    ]
    for engine in engines:
        engine.wait()
    return engines


def add_served(name: str, engines: Sequence[Engine], figures: Figures) -> None:
    """Adds in how many engines of each variant all layers are bound to what it serves, which must be all of them: where
    the plugin is not there, SGLang alone would be compared with itself."""
    for variant in dict.fromkeys(engine.variant for engine in engines if engine.variant.serves):
        its = [engine for engine in engines if engine.variant is variant]
        served = sum(set(engine.bound) == {variant.serves} for engine in its)
        figures.add(f"{name}.{variant.name}.served", served, "engines", equals=len(its))


def _traces(log: Path) -> Path:
    return log.with_suffix(".trace")


def _serve(variant: Variant, arguments: dict[str, Any], log: Path, pipe: Any) -> None:
    for name in os.environ.keys() - inherited().keys():
        del os.environ[name]
    log.parent.mkdir(parents=True, exist_ok=True)
    if variant.serves:
        shutil.rmtree(_traces(log), ignore_errors=True)  # an earlier run's
        os.environ.update(tracing(_traces(log).absolute()))
    os.environ.update(variant.settings)
    os.environ["SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"] = "0"  # engines that start beside it take memory as they go
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    began = time.perf_counter()
    from sglang import Engine as SGLangEngine  # noqa: PLC0415 - SGLang reads the environment when it is imported

    engine = SGLangEngine(**arguments)
    pipe.send(time.perf_counter() - began)
    try:
        while True:
            method, arguments = pipe.recv()
            pipe.send(getattr(engine, method)(**arguments))
    except EOFError:  # whoever asked is done
        pass
    finally:  # an error is told in the log once SGLang's processes have ended
        engine.shutdown()
