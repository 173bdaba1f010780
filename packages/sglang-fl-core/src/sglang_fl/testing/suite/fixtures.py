"""What the tests take as arguments, and for which ops and dtypes each runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sglang_fl.errors import SglangFlError
from sglang_fl.ops import CONTRACTS, NORMS
from sglang_fl.testing.collectives.ranks import SIZE, Ranks, run_ranks
from sglang_fl.testing.requirements import DTYPES, Requirements
from sglang_fl.testing.serving.servers import Kind, Served, Servers
from sglang_fl.testing.steps import Steps, watched
from sglang_fl.testing.subject import Subject, subject_of
from sglang_fl.testing.under_test import OpUnderTest

__all__ = [
    "attending",
    "norm",
    "op",
    "plain",
    "pytest_generate_tests",
    "ranks",
    "replaying",
    "rotary",
    "servers",
    "steps",
    "subject",
]

_OPS_OF = {"op": tuple(CONTRACTS), "norm": NORMS, "rotary": ("rotary_embedding",)}
"""Argument of a test -> the ops that it is run for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each op and dtype; those that are closed are skipped with the reason."""
    try:
        requirements = subject_of(metafunc.config, metafunc.definition.path.parent).requirements
    except SglangFlError as error:
        raise pytest.Collector.CollectError(str(error)) from error
    for argument, ops in _OPS_OF.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, [_param(requirements, name, name) for name in ops], indirect=True)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", [_param(requirements, name, getattr(torch, name)) for name in DTYPES])


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Subject:
    """The backend that is tested."""
    return subject_of(request.config, request.path.parent)


@pytest.fixture(scope="module")
def steps(subject: Subject) -> Steps:
    """What each step of using its hooks did to a process of its own."""
    return watched(subject)


@pytest.fixture
def op(request: pytest.FixtureRequest, subject: Subject) -> OpUnderTest:
    """The subject's implementation of one op."""
    return subject.op(request.param, examples=request.config.getoption("sglang_fl_examples"))


norm = rotary = op
"""The same, for tests of the norms, and of the rotary embedding."""


@pytest.fixture(scope="module")
def servers(
    request: pytest.FixtureRequest, subject: Subject, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Servers, started when they are first needed."""
    folder = tmp_path_factory.mktemp("servers")
    started = Servers(subject, folder, request.config.getoption("sglang_fl_serve"))
    yield started
    started.stop()


@pytest.fixture
def plain(subject: Subject, servers: Servers) -> Served:
    """A server with the reference ops and SGLang's plainest attention."""
    subject.require_open("serving")
    return servers.get(Kind(attention="torch_native"))


@pytest.fixture
def attending(subject: Subject, servers: Servers) -> Served:
    """A server with the reference ops and the platform's own attention."""
    subject.require_open("attention")
    return servers.get(Kind())


@pytest.fixture(scope="module")
def ranks(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What every rank got of the communicator's collectives."""
    subject.require_open("collectives")
    subject.require_real_device("a communicator")
    devices = SIZE if subject.device.type == "cpu" else subject.device_module().device_count()
    if devices < SIZE:
        pytest.skip(f"{SIZE} devices are needed, and {devices} is here")
    return run_ranks(subject, tmp_path_factory.mktemp("ranks"))


@pytest.fixture
def replaying(subject: Subject, servers: Servers) -> Served:
    """A server with the subject's ops and the platform's own attention, which decodes through device graphs."""
    subject.require_open("graphs")
    subject.require_graphs()
    return servers.get(Kind(own_ops=True, graphs=True))


def _param(requirements: Requirements, name: str, value: Any) -> Any:
    closed = requirements.why_closed(name)
    marks = [] if closed is None else [pytest.mark.skip(reason=f"{name} is closed: {closed}")]
    return pytest.param(value, id=name, marks=marks)
