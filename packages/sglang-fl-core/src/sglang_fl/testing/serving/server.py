"""A real ``sglang serve``, as its own process, for as long as a ``with`` block lasts."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_fl.testing.processes import SGLANG, free_port, running

_READY_SECONDS = 600
_LOG_LINES = 60
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy of the user's


class ServerFailure(AssertionError):
    """The server ended, did not get ready, or refused a request. Tells the end of its log."""


@dataclass(frozen=True)
class Answer:
    """What a prompt was answered with.

    Attributes:
        tokens: the generated ones.
        of_prompt: the log-probability of each token of the prompt but the first, where they were asked for.
        of_tokens: the log-probability of each generated token.
        cached: how many tokens of the prompt were in the cache already.
    """

    tokens: list[int]
    of_prompt: list[float]
    of_tokens: list[float]
    cached: int


@dataclass(frozen=True)
class Server:
    """A server that answers, and the file with all that its processes print."""

    url: str
    log: Path

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int, *, score_prompts: bool = False) -> list[Answer]:
        """Greedy answers to ``prompts``, in one batch. ``score_prompts`` asks for their log-probabilities, too."""
        request: dict[str, Any] = {
            "input_ids": [list(prompt) for prompt in prompts],
            "sampling_params": {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True},
            "return_logprob": True,
        }
        if score_prompts:
            request["logprob_start_len"] = 0
        return [_answer(one) for one in self._post("/generate", request)]

    def is_ready(self) -> bool:
        """Has it generated a token?"""
        try:
            with _direct.open(f"{self.url}/health_generate", timeout=60) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def failure(self, found: str) -> ServerFailure:
        """An error with the end of the log: the reason is often there."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return ServerFailure("\n".join([f"the server {found}; the end of {self.log}:", *lines]))

    def _post(self, path: str, request: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        body = urllib.request.Request(self.url + path, json.dumps(request).encode(), headers)
        try:
            with _direct.open(body, timeout=_READY_SECONDS) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError) as error:
            raise self.failure(f"refused a request: {error}") from error


@contextmanager
def serving(arguments: Sequence[str], log: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Starts ``sglang serve``, yields it once it generates, and in the end stops it with all its processes.

    Raises ServerFailure when it ends before it is ready, or takes too long.
    """
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    with running([*SGLANG, "serve", *arguments, *address], log, environ) as process:
        server = Server(f"http://127.0.0.1:{port}", log)
        _wait_until_ready(server, process)
        yield server


def _answer(told: Any) -> Answer:
    about = told["meta_info"]
    return Answer(
        tokens=told["output_ids"],
        of_prompt=[one[0] for one in about.get("input_token_logprobs", [])[1:]],
        of_tokens=[one[0] for one in about["output_token_logprobs"]],
        cached=about["cached_tokens"],
    )


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not server.is_ready():
        if process.poll() is not None:
            raise server.failure(f"ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise server.failure(f"was not ready after {_READY_SECONDS} s")
        time.sleep(0.5)
