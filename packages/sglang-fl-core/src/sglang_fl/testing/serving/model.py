"""A model with random weights, small enough to be served anywhere in seconds, and its exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

VOCABULARY = 256


def make_model(folder: Path) -> Path:
    """Makes ``folder`` a Llama of two layers, the same each time, and returns it.

    It has no tokenizer: prompts are token ids below ``VOCABULARY``. Heads are 64 wide: attention kernels that take
    only some widths take this one.
    """
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - it comes with SGLang, and takes seconds

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        initializer_range=0.2,  # with the usual 0.02 every prompt's answer is the same
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class ExactModel:
    """The model in float64, by transformers on the CPU.

    Args:
        folder: the model's.
        dtype: what the server rounds the weights to.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM  # noqa: PLC0415 - see above

        rounded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
        self._model = rounded.double()

    def log_probabilities(self, tokens: Sequence[int]) -> list[float]:
        """Of each token but the first, given all before it."""
        ids = torch.tensor([list(tokens)])
        with torch.inference_mode():
            told = self._model(ids).logits[0].log_softmax(-1)
        return told[:-1].gather(-1, ids[0, 1:, None]).squeeze(-1).tolist()  # type: ignore[no-any-return]
