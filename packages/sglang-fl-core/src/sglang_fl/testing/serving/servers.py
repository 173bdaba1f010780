"""The servers that a subject is tested with: each kind is started once, and knows the right answers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.configuration import clean_environment
from sglang_fl.testing.failure import Nonconformance
from sglang_fl.testing.requirements import DTYPES
from sglang_fl.testing.serving.model import ExactModel, make_model
from sglang_fl.testing.serving.server import Answer, Server, serving
from sglang_fl.testing.subject import Subject
from sglang_fl.trace_records import Bound, Quarantine, Record, read_records, trace_files

POOL = 2048
"""Tokens that the server's cache holds."""

CHUNK = 64
"""Tokens of a prompt that are taken at a time."""

_TOLERANCE = {"float32": 1e-2, "float16": 0.2, "bfloat16": 1.0}
"""dtype -> how far a token's log-probability may be off. Those of wrong tokens are off by 3 on average."""


@dataclass(frozen=True)
class Kind:
    """What distinguishes a server.

    Attributes:
        attention: SGLang's attention backend; None for the platform's own.
        own_ops: served by the subject's ops, and by no other; by the reference ops otherwise.
        graphs: decode through device graphs.
        enabled: with sglang-fl; SGLang is untouched otherwise.
    """

    attention: str | None = None
    own_ops: bool = False
    graphs: bool = False
    enabled: bool = True


@dataclass(frozen=True)
class Served:
    """A running server and what it must answer."""

    who: str
    server: Server
    model: Path
    dtype: str
    trace: Path

    @cached_property
    def exact(self) -> ExactModel:
        """The model as it should answer."""
        return ExactModel(self.model, getattr(torch, self.dtype))

    @property
    def serving(self) -> dict[str, str | None]:
        """Op -> what the layers of the model are bound to. Raises AssertionError when no process tells."""
        found = [record for record in self._all_records() if isinstance(record, Bound)]
        assert found, f"no process says what its layers are bound to; log: {self.server.log}"
        return {row.op: row.implementation for row in found[0].rows}

    @property
    def quarantined(self) -> dict[str, str]:
        """Implementation -> why it failed, so far."""
        return {one.implementation: one.reason for one in self._all_records() if isinstance(one, Quarantine)}

    @property
    def records(self) -> dict[Path, list[Record]]:
        """What each process of the server has traced so far."""
        return {file: list(read_records(file)) for file in trace_files([self.trace])}

    def _all_records(self) -> Iterator[Record]:
        return (record for records in self.records.values() for record in records)

    def require_right(self, prompts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> None:
        """Raises Nonconformance for a token whose log-probability is not the exact model's."""
        for prompt, answer in zip(prompts, answers, strict=True):
            told = answer.of_prompt + answer.of_tokens
            wanted = self.exact.log_probabilities([*prompt, *answer.tokens])[-len(told) :]
            far = [_distance(got, want) for got, want in zip(told, wanted, strict=True)]
            worst = max(range(len(far)), key=far.__getitem__)
            if far[worst] > _TOLERANCE[self.dtype]:
                raise Nonconformance(
                    self.who,
                    asked=f"the log-probabilities of a prompt of {len(prompt)} tokens and of {len(answer.tokens)} more",
                    found=f"that of the last but {len(told) - 1 - worst} is {told[worst]:.4f}, exact is "
                    f"{wanted[worst]:.4f}; in {self.dtype} it may be off by {_TOLERANCE[self.dtype]}",
                    do=f"compare layer by layer with SGLang's torch_native attention; log: {self.server.log}",
                )


class Servers:
    """Starts the subject's servers when they are first asked for, and stops them all in the end.

    Args:
        subject: who is tested.
        folder: where their models, logs and traces go.
        extra: SGLang's arguments for all of them. What a test asks for goes before.
    """

    def __init__(self, subject: Subject, folder: Path, extra: Sequence[str]) -> None:
        self._subject = subject
        self._folder = folder
        self._extra = tuple(extra)
        self._running: dict[tuple[Kind, str], Served] = {}
        self._stack = ExitStack()

    def get(self, kind: Kind) -> Served:
        """A server of this kind. Skips the test where SGLang is not installed; raises ServerFailure as it ends."""
        self._subject.require_real_device("a server")
        if "sglang" not in self._subject.versions:
            pytest.skip("SGLang is not installed")
        kind = self._settled(kind)
        dtype = self._dtype(kind)
        if (kind, dtype) not in self._running:
            self._running[kind, dtype] = self._start(kind, dtype)
        return self._running[kind, dtype]

    def stop(self) -> None:
        """Stops them all."""
        self._stack.close()

    def _start(self, kind: Kind, dtype: str) -> Served:
        folder = Path(tempfile.mkdtemp(dir=self._folder))  # a start that failed leaves its own, with its log
        model = make_model(folder / "model")
        environ = clean_environment(self._variables(kind, folder / "trace"))
        arguments = [*self._extra, *_arguments(kind, model, dtype)]  # of an argument that comes twice, the last counts
        server = self._stack.enter_context(serving(arguments, folder / "server.log", environ))
        return Served(self._subject.name, server, model, dtype, folder / "trace")

    def _settled(self, kind: Kind) -> Kind:
        """The same server by another name is one server."""
        platform = self._subject.platform
        own_is_native = not platform.in_tree and platform.attention_backend == "torch_native"
        return Kind("torch_native", kind.own_ops, kind.graphs, kind.enabled) if own_is_native else kind

    def _dtype(self, kind: Kind) -> str:
        # SGLang's torch_native attention takes float32, which tells most; faster ones take halves only.
        order = DTYPES if kind.attention == "torch_native" else ("float16", "bfloat16", "float32")
        return next(dtype for dtype in order if self._subject.requirements.why_closed(dtype) is None)

    def _variables(self, kind: Kind, trace: Path) -> dict[str, str]:
        if not kind.enabled:
            return {"SGLANG_FL_ENABLED": "0"}
        told = {
            "SGLANG_FL_PLATFORM": self._subject.platform.name,
            "SGLANG_FL_PREFER": "reference",
            "SGLANG_FL_TRACE": "hooks,select",
            "SGLANG_FL_TRACE_DIR": str(trace),
        }
        if not kind.own_ops:  # whatever the platform's own defaults prefer for an op
            reference = ";".join(f"{op}=reference" for op in CONTRACTS)
            return {**told, "SGLANG_FL_STRICT": "1", "SGLANG_FL_PER_OP": reference}
        # Not strict: what accepts refuses goes to the reference. What fails is told by the trace.
        own = f"impl:{self._subject.requirements.implementation}|reference"
        return {**told, "SGLANG_FL_PER_OP": ";".join(f"{op}={own}" for op in self._subject.impls)}


def _distance(got: float, wanted: float) -> float:
    return math.inf if math.isnan(got) else abs(got - wanted)


def _arguments(kind: Kind, model: Path, dtype: str) -> list[str]:
    arguments = {
        "model-path": str(model),
        "dtype": dtype,
        "max-total-tokens": str(POOL),
        "chunked-prefill-size": str(CHUNK),
        "random-seed": "0",
    }
    if kind.attention is not None:
        arguments["attention-backend"] = kind.attention
    if kind.graphs:
        arguments["cuda-graph-max-bs-decode"] = "8"
    else:
        arguments |= {"cuda-graph-backend-decode": "disabled", "cuda-graph-backend-prefill": "disabled"}
    return ["--skip-tokenizer-init", *(word for name, value in arguments.items() for word in (f"--{name}", value))]
