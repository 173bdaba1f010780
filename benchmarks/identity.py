"""Do our ops change a model's answers? Three ways to generate must agree in every token.

SmolLM2 in float32, 16 prompts of 64 greedy tokens each: through SGLang's own forwards, through our reference ops, and
through transformers. Unknown arguments go to ``sglang serve``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from benchmarks.figures import Figures, parser
from benchmarks.inherited import inherited
from benchmarks.prompts import PROMPTS
from examples.bound import bound_rows, tracing
from examples.server import serve
from examples.smollm2 import model_path
from sglang_fl.layers import OWN

NEW_TOKENS = 64

# What makes the arithmetic of the three comparable, in float32:
SERVE = [
    *("--dtype", "float32"),
    # SGLang's default attention on a GPU multiplies float32 in TF32; this one is torch's, as in transformers.
    *("--attention-backend", "torch_native"),
    # A cached prefix is not computed again, and a matrix product of fewer rows may round otherwise.
    "--disable-radix-cache",
    *("--max-total-tokens", "4096"),
]
# How a product is split among threads may change its rounding too; and on a busy machine one thread waits for no other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
SERVED = {
    "native": {"SGLANG_FL_OOT_ENABLED": "0"},
    "reference": {"SGLANG_FL_PREFER": "reference"},
}

Tokens = list[int]
Answers = list[Tokens]


def main() -> None:
    """Generates in the three ways, one after the other, and exits 1 unless they agree."""
    options, serve_arguments = parser(__doc__ or "").parse_known_args()
    folder, figures = model_path(_tell), Figures(options.json)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    answers, layers = {}, {}
    for name, environment in SERVED.items():
        answers[name], layers[name] = _served(name, folder, prompts, serve_arguments, environment)
    figures.add("identity.native.layers_bound", layers["native"], "layers", equals=0)
    figures.add("identity.reference.layers_bound", layers["reference"], "layers", at_least=1)
    model = _model(folder)
    answers["transformers"] = _generated(model, prompts)
    _compare(answers, _logits(model, prompts, answers["transformers"]), figures)
    figures.finish()


def _served(
    name: str, model: Path, prompts: Answers, arguments: list[str], environment: Mapping[str, str]
) -> tuple[Answers, int]:
    """What ``sglang serve`` answers, and how many of its layers call an implementation that is not SGLang's own."""
    _tell(f"generating by sglang serve, {name}")
    with tempfile.TemporaryDirectory(prefix="sglang-fl-identity-") as scratch:
        trace, log = Path(scratch, "trace"), Path(scratch, "server.log")
        environment = {**inherited(), **ONE_THREAD, **environment, **tracing(trace)}
        with serve(["--model-path", str(model), *SERVE, *arguments], log, environment) as server:
            bound = sum(row.layers for row in bound_rows(trace) if row.implementation != OWN)
            with server.client() as client:  # one at a time: the products of a batch may round otherwise
                return [_asked(client, prompt) for prompt in prompts], bound


def _asked(client: httpx.Client, prompt: Tokens) -> Tokens:
    sampling = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    answer = client.post("/generate", json={"input_ids": prompt, "sampling_params": sampling})
    tokens: Tokens = answer.raise_for_status().json()["output_ids"]
    return tokens


def _model(folder: Path) -> PreTrainedModel:
    torch.set_num_threads(1)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    # No end of text, as the servers are told, and nothing else that the model's own settings might add.
    model.generation_config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    return model


def _generated(model: PreTrainedModel, prompts: Answers) -> Answers:
    """What transformers answers."""
    _tell("generating by transformers")
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(ids, attention_mask=torch.ones_like(ids))
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def _logits(model: PreTrainedModel, prompts: Answers, answers: Answers) -> list[torch.Tensor]:
    """For each prompt, the logits ``[NEW_TOKENS, vocabulary]`` that each token of its answer was chosen by."""
    texts = (
        torch.tensor([prompt + answer], device=model.device) for prompt, answer in zip(prompts, answers, strict=True)
    )
    with torch.inference_mode():
        return [model(text).logits[0, -NEW_TOKENS - 1 : -1] for text in texts]


def _compare(answers: Mapping[str, Answers], logits: list[torch.Tensor], figures: Figures) -> None:
    """Adds a figure for each pair, and the smallest lead of a chosen token over the next, for judging a difference."""
    for (one, ones), (other, others) in combinations(answers.items(), 2):
        same = [_first_difference(a, b) is None for a, b in zip(ones, others, strict=True)]
        figures.add(f"identity.{one}_{other}", sum(same), "prompts", equals=len(PROMPTS))
    leads = [(best - second).min().item() for best, second in (each.topk(2).values.unbind(-1) for each in logits)]
    figures.add("identity.smallest_lead", min(leads), "logits")
    for name, others in answers.items():
        for index, (mine, its) in enumerate(zip(answers["transformers"], others, strict=True)):
            _tell_difference(name, index, mine, its, logits[index])


def _first_difference(one: Tokens, other: Tokens) -> int | None:
    """Where two answers part: the position of a token, or None. Raises ValueError when one is not of full length."""
    if not len(one) == len(other) == NEW_TOKENS:
        msg = f"answers of {len(one)} and {len(other)} tokens, not {NEW_TOKENS}"
        raise ValueError(msg)
    return next((position for position, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)


def _tell_difference(name: str, index: int, mine: Tokens, its: Tokens, logits: torch.Tensor) -> None:
    position = _first_difference(mine, its)
    if position is not None:
        lead = (logits[position, mine[position]] - logits[position, its[position]]).item()
        _tell(
            f"{name} leaves transformers at prompt {index} {PROMPTS[index][:40]!r}, token {position}: "
            f"{its[position]}, not {mine[position]}, which transformers puts {lead:.3g} logits higher"
        )


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
