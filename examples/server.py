"""A real ``sglang serve``, as its own process, for as long as a ``with`` block lasts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from sglang_fl.errors import SglangFlError
from sglang_fl.testing.processes import SGLANG, free_port, running

READY_SECONDS = 600
LOG_LINES = 40


class ServerError(SglangFlError):
    """The server ended, or did not get ready in time."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: where it listens, e.g. ``http://127.0.0.1:31000``.
        log: the file with all that its processes print.
    """

    url: str
    log: Path

    def client(self) -> httpx.Client:
        """A client for paths like ``/generate``. It goes to the server directly, past any proxy of the user's."""
        return httpx.Client(base_url=self.url, timeout=600, trust_env=False)

    def log_lines(self) -> list[str]:
        """The log so far."""
        return self.log.read_text(errors="replace").splitlines()


@contextmanager
def serve(
    arguments: list[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[Server]:
    """Starts ``sglang serve``, yields it once it generates, and in the end stops it with all its processes.

    Whatever exception ends the block, the end of the server's log goes to stderr first: the reason is often there.

    Args:
        arguments: what to serve and how, e.g. ``["--model-path", "..."]``. Host and port are added here.
        log: the file to write all output to.
        env: the server's environment, when not this process's.
        progress: called with SGLang's latest message, twice a second, while the server starts.

    Raises:
        ServerError: the server ended before it was ready, or took longer than ``READY_SECONDS``.
    """
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with running([*SGLANG, "serve", *arguments, *address], log, env) as process:
        server = Server(f"http://127.0.0.1:{port}", log)
        try:
            _wait_until_ready(server, process, progress)
            yield server
        except BaseException:
            print(f"The end of {log}:", *server.log_lines()[-LOG_LINES:], sep="\n", file=sys.stderr)
            raise


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], progress: Callable[[str], None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with server.client() as client:
        while not _is_ready(client):
            if process.poll() is not None:
                raise _not_ready(server, f"that it ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise _not_ready(server, f"that it was not ready after {READY_SECONDS} s")
            progress(_latest_message(server))
            time.sleep(0.5)


def _is_ready(client: httpx.Client) -> bool:
    """Has it generated a token?"""
    try:
        return client.get("/health_generate").is_success
    except httpx.TransportError:  # it does not listen yet
        return False


def _latest_message(server: Server) -> str:
    """SGLang's own lines are ``[time] message``; the others are its libraries' warnings."""
    messages = (line.partition("] ")[2] for line in reversed(server.log_lines()) if line.startswith("["))
    return next(messages, "")


def _not_ready(server: Server, found: str) -> ServerError:
    return ServerError(
        "examples.server", asked=f"a server at {server.url}", found=found, do=f"mend what its log tells: {server.log}"
    )
