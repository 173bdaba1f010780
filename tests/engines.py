"""A real ``sglang.Engine`` in a process of its own, and what transformers answers to the same prompts."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.adapter.releases.wheels import source_folder

ROOT = Path(__file__).parents[1]
PROMPTS = [[1, 5, 9, 200, 33], [7, 7, 250]]
TOKENS = 16


@dataclass(frozen=True)
class Answer:
    """The tokens that an engine answered ``PROMPTS`` with, and all that its processes printed."""

    tokens: list[list[int]]
    log: str


def generate(python: Path | str, model: Path, folder: Path, variables: Mapping[str, str]) -> Answer:
    """Starts the engine of the environment of ``python`` in fp32, asks it ``PROMPTS``, and ends all its processes.

    Args:
        python: the interpreter to run it with.
        model: a Llama's folder.
        folder: where to keep the log.
        variables: what the engine's environment has besides this process's, of which it has nothing of SGLang's.
    """
    release = importlib.metadata.version("sglang")
    told, log = ask(python, model, folder, {**environ_of(release), **variables})
    return Answer(told["tokens"], log)


def ask(
    python: Path | str, model: Path, folder: Path, environ: Mapping[str, str], *arguments: object
) -> tuple[dict[str, Any], str]:
    """Runs the engine's program, ``MODEL ANSWER ARGUMENTS``, asks it ``PROMPTS``, and ends all its processes.

    Returns what it writes to ANSWER, and what its processes print.
    """
    log, answer = folder / "engine.log", folder / "answer.json"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, (python, "-m", "tests.adapter.releases.engine", model, answer, *arguments))],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        process.communicate(json.dumps([PROMPTS, TOKENS]).encode())
    finally:
        with suppress(ProcessLookupError):  # none of its processes is left
            os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    assert process.returncode == 0, f"the engine ended with status {process.returncode}:\n{text[-5000:]}"
    return json.loads(answer.read_text()), text


def greedy(model: Path) -> list[list[int]]:
    """What transformers answers to ``PROMPTS``, in fp32."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    answers = [list(prompt) for prompt in PROMPTS]
    with torch.inference_mode():
        for ids in answers:
            for _ in range(TOKENS):
                ids.append(int(reference(torch.tensor([ids])).logits[0, -1].argmax()))
    return [ids[len(prompt) :] for ids, prompt in zip(answers, PROMPTS, strict=True)]


def environ_of(release: str, *, keeping: str = "llama") -> dict[str, str]:
    """This process's, without its settings of SGLang and of ours, for an engine of ``release`` on the CPU.

    Of the release's models it imports ``keeping`` alone: importing all of them takes 10 seconds.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG")}
    models = (source_folder(release) / "sglang/srt/models").glob("*.py")
    others = ",".join(file.stem for file in models if file.stem != keeping)
    return {**inherited, "CUDA_VISIBLE_DEVICES": "", "SGLANG_DISABLED_MODEL_ARCHS": others}
