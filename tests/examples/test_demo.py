"""The demo as a user runs it: a process of its own, which must leave none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest

DEMO = [sys.executable, "-m", "examples.demo"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # beside other tests, threads would only wait for each other
pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]


def test_the_demo_answers_and_shows_what_served_it() -> None:
    # In bfloat16 two first tokens of this answer are a tie (their logits differ by 0.08, in steps of 0.125).
    result = run("--question", "What is the capital of France?", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    assert "The capital of France is Paris." in result.stdout
    for op in ("rms_norm", "rotary_embedding", "silu_and_mul"):
        assert op in result.stdout
    assert "tokens/s" in result.stdout


def test_a_server_that_does_not_start_ends_the_demo_with_the_servers_own_words(tmp_path: Path) -> None:
    result = run("--model-path", str(tmp_path / "absent"))
    assert result.returncode == 1
    assert "The end of " in result.stderr
    assert str(tmp_path / "absent") in result.stderr
    assert "examples.server: asked for a server at" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_server(number: signal.Signals) -> None:
    with subprocess.Popen(DEMO, env=ENVIRONMENT, stdout=PIPE, stderr=PIPE, text=True) as demo:
        servers = server_processes(demo.pid)
        demo.send_signal(number)
        _, stderr = demo.communicate()
    assert demo.returncode == 128 + number
    assert "The end of " in stderr
    assert psutil.wait_procs(servers, timeout=10)[1] == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)


def server_processes(pid: int) -> list[psutil.Process]:
    """The processes of the server, once it has loaded SGLang and started some of its own."""
    while len(children := psutil.Process(pid).children(recursive=True)) < 2:
        time.sleep(0.5)
    return children
