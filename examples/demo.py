"""A real ``sglang serve`` with the plugin installed: asks it a question, and shows what served the answer.

Unknown arguments go to ``sglang serve``, e.g. ``hatch run demo --question "Who are you?" --dtype float32``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionChunk
from rich.console import Console
from rich.table import Table
from rich.text import Text

from examples.bound import bound_rows, tracing
from examples.server import Server, serve
from examples.smollm2 import model_path
from sglang_fl.errors import SglangFlError
from sglang_fl.trace_records import BoundRow

QUESTION = "Tell me about Paris in two sentences."
ANSWER_TOKENS = 128
# SGLang sizes its cache by the machine's memory. One conversation needs a thousandth of that, and starts sooner.
SERVE = ["--max-total-tokens", "8192"]


@dataclass(frozen=True)
class Speed:
    """What an answer took: seconds to its first token and to its end, and how many tokens it had."""

    first: float
    end: float
    tokens: int

    def __str__(self) -> str:
        rate = (self.tokens - 1) / (self.end - self.first) if self.tokens > 1 else float("nan")
        return f"{rate:.1f} tokens/s ({self.tokens} tokens, the first after {self.first:.2f} s)"


def main() -> None:
    """Runs the demo. When it fails, it prints the end of the server's log and exits 1; on Ctrl-C, 130."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # end in order: the server must not be left behind
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    options, serve_arguments = _parser().parse_known_args()
    console = Console()
    try:
        demo(console, options.model_path or _smollm2(console), options.question, serve_arguments)
    except (SglangFlError, OpenAIError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def demo(console: Console, model: str, question: str, serve_arguments: list[str]) -> None:
    """Serves ``model``, asks it ``question``, and prints its answer, what served it and how fast."""
    with (
        tempfile.TemporaryDirectory(prefix="sglang-fl-demo-") as folder,
        _serving(console, ["--model-path", model, *SERVE, *serve_arguments], Path(folder)) as server,
    ):
        speed = _ask(console, server, question)
        console.print(_table(bound_rows(server.log.parent / "trace")))
        _say(console, "Speed", str(speed))
        _say(console, "Stopping", "the server")


def _say(console: Console, label: str, text: str, end: str = "\n") -> None:
    console.print(Text.assemble((f"{label:10}", "bold"), text), soft_wrap=True, end=end)


@contextmanager
def _serving(console: Console, arguments: list[str], folder: Path) -> Iterator[Server]:
    """The server, with its log and its trace in ``folder``; shows how it starts."""
    _say(console, "Starting", shlex.join(["sglang", "serve", *arguments]))
    began = time.monotonic()
    with console.status("") as status:

        def show(message: str) -> None:
            line = Text.assemble(f"{time.monotonic() - began:.0f} s  ", (message, "dim"))
            line.truncate(console.width - 4, overflow="ellipsis")  # the spinner takes the rest
            status.update(line)

        with serve(arguments, folder / "server.log", {**os.environ, **tracing(folder / "trace")}, show) as server:
            status.stop()
            _say(console, "Ready", f"after {time.monotonic() - began:.0f} s")
            yield server


def _ask(console: Console, server: Server, question: str) -> Speed:
    """Prints the question, and the answer as it comes."""
    _say(console, "Question", question)
    _say(console, "Answer", "", end="")
    began = time.monotonic()
    times, tokens = [], 0
    for chunk in _answer(server, question):
        text = "".join(choice.delta.content or "" for choice in chunk.choices)
        console.out(text, end="", highlight=False)
        times += [time.monotonic() - began] if text else []
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    console.print()
    if not times:
        raise SglangFlError(
            "examples.demo", asked=f"an answer to {question!r}", found="one without text", do="ask another --question"
        )
    return Speed(first=times[0], end=times[-1], tokens=tokens)


def _answer(server: Server, question: str) -> Iterator[ChatCompletionChunk]:
    """The chunks of the answer, the last with the count of its tokens."""
    with (
        httpx.Client(timeout=600, trust_env=False) as direct,  # past any proxy of the user's
        OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=direct) as client,
    ):
        yield from client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": question}],
            max_tokens=ANSWER_TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )


def _table(rows: list[BoundRow]) -> Table:
    table = Table(title="What serves the model's layers", title_justify="left")
    for name in ("op", "implementation", "layers", "layer class", "note"):
        table.add_column(name, justify="right" if name == "layers" else "left")
    for row in rows:
        cells = (row.op, row.implementation or "", str(row.layers), row.layer_class, row.note or "")
        table.add_row(*map(Text, cells))
    return table


def _smollm2(console: Console) -> str:
    return str(model_path(lambda step: _say(console, "Model", step)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--question", default=QUESTION, help="what to ask")
    parser.add_argument("--model-path", help="what to serve, instead of SmolLM2-135M-Instruct")
    return parser


if __name__ == "__main__":
    main()
