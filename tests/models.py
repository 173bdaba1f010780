"""Models made for tests: small enough to be served anywhere in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(folder: Path) -> Path:
    """Makes ``folder`` a Llama of two layers with random weights, the same each time, and returns it.

    It has no tokenizer: serve it with ``skip_tokenizer_init``, and ask with token ids below 256.
    """
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        initializer_range=0.5,  # the usual 0.02 makes every prompt's answer the same
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
