"""Processes of their own: a module's, with none of core's settings, and a server's, with all that it starts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sglang_fl.testing.configuration import clean_environment

SECONDS = 600
STOP_SECONDS = 20

SGLANG = (sys.executable, "-c", "from sglang.cli.main import main; main()")
"""The command ``sglang`` of this Python's SGLang. What the PATH has by that name may be another's, or nothing."""


def run_module(module: str, *arguments: str, **variables: str) -> Any:
    """What ``python -m module`` writes as JSON on its last line of output. Raises AssertionError when it fails."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"python -m {module} ended with status {ended.returncode}:\n{ended.stderr[-4000:]}"
    return json.loads(ended.stdout.splitlines()[-1])


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: Sequence[str], log: Path, environ: Mapping[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``command``, its output into ``log``, and in the end stops it with all its processes.

    It may end its children and itself; what is left after ``STOP_SECONDS`` is ended by force.
    """
    # A session of its own: its processes can be stopped together, and Ctrl-C reaches them only through this one.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):  # none is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
