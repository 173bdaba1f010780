"""What SGLang engines are given to do when their speeds are compared: models, requests, and turns."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.cores import fastest
from benchmarks.engines import Engine, Tokens, add_served
from benchmarks.figures import Figures

SECONDS, LEAST_ROUNDS = 15.0, 3
"""For about how long each engine does each work, by the speed of SGLang alone. In each round each engine has a turn."""

TURN_SECONDS, LEAST_ANSWERS = 0.15, 2
"""In a turn the work is repeated until SGLang alone would take about that long, or a little more where one answer does.
Short turns, and so many of them: some are lucky with their cores, and most are not."""

CORES = 6
"""On how many an engine runs: as many as it has processes with two ranks, and two for their other threads."""

_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16"}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "smollm2": {
        **_LLAMA,
        **{"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152},
        **{"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192},
        **{"rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": True},
    },
    "llama8b": {
        **_LLAMA,
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192},
        **{"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False},
    },
}
ARGUMENTS = {
    **{"load_format": "dummy", "skip_tokenizer_init": True, "disable_radix_cache": True, "log_level": "info"},
    **{"attention_backend": "triton", "sampling_backend": "pytorch", "grammar_backend": "none"},
    # Several engines share the GPU: each takes the cache that the work needs, and no share of what is left.
    **{"max_total_tokens": 10240, "max_running_requests": 32, "mem_fraction_static": 0.98, "sleep_on_idle": True},
}


class Work(NamedTuple):
    """Requests of one size: how many, how long, and how many tokens each gets."""

    requests: int
    prompt_tokens: int
    new_tokens: int

    @property
    def tokens(self) -> int:
        """What the work is counted in: the tokens of the prompts when one is asked for, those made otherwise."""
        return self.requests * (self.prompt_tokens if self.new_tokens == 1 else self.new_tokens)

    def prompts(self, vocabulary: int) -> list[Tokens]:
        """The same in every engine."""
        rng = random.Random(0)
        return [[rng.randrange(vocabulary) for _ in range(self.prompt_tokens)] for _ in range(self.requests)]


WORKS = {
    "prefill": Work(requests=8, prompt_tokens=1024, new_tokens=1),
    # Of an answer of 16 tokens a third was no decoding: the prompt, and its way through three processes.
    "decode32": Work(requests=32, prompt_tokens=32, new_tokens=64),
    "decode1": Work(requests=1, prompt_tokens=32, new_tokens=64),
}


def model(shape: str, folder: Path) -> Path:
    """Makes ``folder`` a model of that shape: a configuration alone, whose weights are random."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[shape]))
    return folder


def compare(
    name: str,
    engines: Sequence[Engine],
    vocabulary: int,
    bounds: Mapping[str, float],
    figures: Figures,
    seconds: float = SECONDS,
) -> None:
    """Adds what each variant serves, its speed at each work, and what it keeps of that of the first: SGLang alone's.

    Of an engine the best answer counts: a shared machine only ever takes from it. Of several engines of a variant the
    median does: two processes that do the same differ by a per cent, the one as likely faster as the other. What the
    slowest keeps of the fastest is added. ``bounds`` are what is to be kept, by variant. Each engine does each work for
    about ``seconds``.
    """
    add_served(name, engines, figures)
    for label, work in WORKS.items():
        best = _in_turns(engines, work.prompts(vocabulary), work.new_tokens, seconds)
        taken: dict[str, list[float]] = {}
        for engine, its in zip(engines, best, strict=True):
            taken.setdefault(engine.variant.name, []).append(its)
        for variant, mine in taken.items():
            figures.add(f"{name}.{variant}.{label}", work.tokens / median(mine), "tokens/s")
        compare_times(name, label, taken, figures, bounds)


def compare_times(
    name: str, label: str, taken: Mapping[str, Sequence[float]], figures: Figures, bounds: Mapping[str, float]
) -> None:
    """Adds what of each variant's engines the slowest keeps of the fastest, and their median of the first variant's."""
    for variant, mine in taken.items():
        if len(mine) > 1:
            figures.add(f"{name}.{variant}.{label}.slowest", min(mine) / max(mine), "ratio")
    alone, *others = taken
    for variant in others:
        kept = median(taken[alone]) / median(taken[variant])
        figures.add(f"{name}.{variant}.{label}.kept", kept, "ratio", at_least=bounds.get(variant))


def _in_turns(engines: Sequence[Engine], prompts: list[Tokens], new_tokens: int, seconds: float) -> list[float]:
    """Each engine's least seconds for the work, when each does it for about ``seconds``.

    Each turn follows another engine's, for all alike: the GPU and the caches have been that one's, and an engine that
    followed itself would find them its own. The first answer of a turn pays most of that, and does not count. In each
    round all run on the same cores, which were the fastest when it began: who comes first is left to chance.
    """
    warm = [engine.timed(prompts, new_tokens) for engine in engines for _ in range(2)]
    alone = warm[1]  # the first engine is SGLang alone
    repeats = max(LEAST_ANSWERS, round(TURN_SECONDS / alone))
    best, order = dict.fromkeys(engines, inf), engines
    for _ in range(max(LEAST_ROUNDS, round(seconds / alone / (repeats + 1)))):
        cores, order = fastest(CORES), _shuffled(engines, order[-1])
        for engine in order:
            engine.run_on(cores)
            engine.timed(prompts, new_tokens)
            best[engine] = min(best[engine], *(engine.timed(prompts, new_tokens) for _ in range(repeats)))
    return list(best.values())


def _shuffled(engines: Sequence[Engine], last: Engine) -> Sequence[Engine]:
    """In any order that does not begin with ``last``, unless there is no other. Of two there is but one."""
    order = random.sample(engines, len(engines))
    while order[0] is last and len(engines) > 1:
        order = random.sample(engines, len(engines))
    return order
