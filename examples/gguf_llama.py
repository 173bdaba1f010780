"""A Llama model from one GGUF file to the folder that transformers and SGLang load.

transformers reads GGUF files too, but from 5.19 it loses the rope parameters and refuses to save what it read. So
this takes everything from the file's own metadata, and leaves only the writing to transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Metadata = Mapping[str, Any]


def convert(file: Path, folder: Path) -> None:
    """Writes config, weights (float32, as exact as the file's quantised ones are) and tokenizer into ``folder``.

    Raises ValueError when the file holds another architecture or tokenizer than is understood here.
    """
    reader = gguf.GGUFReader(file)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    _require(metadata, "general.architecture", "llama")
    _require(metadata, "tokenizer.ggml.model", "gpt2")
    _require(metadata, "tokenizer.ggml.pre", "smollm")
    config = _config(metadata)
    config.save_pretrained(folder)
    _generation_config(metadata).save_pretrained(folder)
    _tokenizer(metadata).save_pretrained(folder)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    save_file(_weights(tensors, config), folder / "model.safetensors", metadata={"format": "pt"})


def _require(metadata: Metadata, key: str, value: str) -> None:
    if metadata[key] != value:
        msg = f"{key} is {metadata[key]!r}, and only {value!r} can be converted"
        raise ValueError(msg)


def _config(metadata: Metadata) -> LlamaConfig:
    """The shape of the model. The file has no output matrix, so it is the embedding's: they are tied."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",  # what the model was trained in; the weights here are wider, to be cast to any dtype
        vocab_size=metadata["llama.vocab_size"],
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=metadata["llama.attention.head_count"],
        num_key_value_heads=metadata["llama.attention.head_count_kv"],
        head_dim=metadata["llama.rope.dimension_count"],
        max_position_embeddings=metadata["llama.context_length"],
        rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        **_token_ids(metadata),
    )


def _generation_config(metadata: Metadata) -> GenerationConfig:
    return GenerationConfig(**_token_ids(metadata))


def _token_ids(metadata: Metadata) -> dict[str, int]:
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{name}_token_id": metadata[f"tokenizer.ggml.{key}_token_id"] for name, key in names.items()}


def _weights(tensors: Mapping[str, gguf.ReaderTensor], config: LlamaConfig) -> dict[str, np.ndarray]:
    """Every parameter of the model by transformers' name, in float32."""
    with torch.device("meta"):
        parameters = dict(LlamaForCausalLM(config).named_parameters())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    weights = {}
    for name, parameter in parameters.items():
        weight = _dequantized(tensors, names.get_name(name, try_suffixes=(".weight",)) or name, parameter.shape)
        rotary = name.endswith(("q_proj.weight", "k_proj.weight"))
        weights[name] = _halves(weight, config.head_dim) if rotary else weight
    return weights


def _dequantized(tensors: Mapping[str, gguf.ReaderTensor], name: str, shape: torch.Size) -> np.ndarray:
    if name not in tensors:
        msg = f"the file has no tensor {name!r}"
        raise ValueError(msg)
    weight = gguf.dequantize(tensors[name].data, tensors[name].tensor_type)
    if weight.shape != shape:
        msg = f"{name} has shape {weight.shape}, and the model needs {tuple(shape)}"
        raise ValueError(msg)
    return weight


def _halves(weight: np.ndarray, head_dim: int) -> np.ndarray:
    """The rows of each head as rotary pairs of (i, i + d/2), which GGUF keeps as pairs of (2i, 2i + 1)."""
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _tokenizer(metadata: Metadata) -> PreTrainedTokenizerFast:
    tokens = metadata["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_pair_tokenizer(metadata),
        chat_template=metadata["tokenizer.chat_template"],
        model_max_length=metadata["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]] for role, key in roles.items()},
    )


def _byte_pair_tokenizer(metadata: Metadata) -> Tokenizer:
    """Byte pairs in GPT-2's way, but each digit on its own: what GGUF calls ``smollm``."""
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
