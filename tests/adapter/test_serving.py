"""A real server, with broken third parties around it: the rest serves, and each is reported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from examples.server import Server, ServerError, serve
from tests.models import tiny_llama
from tests.third_parties import third_party

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PROMPT = [3, 14, 15, 92, 65, 35]
TOKENS = 12

BROKEN = {
    "raises-on-import": "raise RuntimeError('no driver')",
    "returns-garbage": """
        from sglang_fl import hookimpl

        @hookimpl
        def sglang_fl_register_ops(platform):
            return ["silu_and_mul"]
    """,
    "misspells-a-hook": """
        from sglang_fl import hookimpl

        @hookimpl
        def sglang_fl_register_opps(platform):
            return []
    """,
    "declares-twice": """
        from sglang_fl import BackendImplKind, OpImpl, hookimpl

        @hookimpl
        def sglang_fl_register_ops(platform):
            impl = OpImpl(op="rms_norm", impl_id="twice", kind=BackendImplKind.VENDOR, vendor="twice", fn=print)
            return [impl, impl]
    """,
    "negative-priority": """
        from sglang_fl import BackendImplKind, OpImpl, hookimpl

        @hookimpl
        def sglang_fl_register_ops(platform):
            return [OpImpl(op="rms_norm", impl_id="n", kind=BackendImplKind.VENDOR, vendor="n", fn=print, priority=-1)]
    """,
}

BAD_KERNELS = """
    from sglang_fl import BackendImplKind, OpImpl, hookimpl

    def overwrites_and_raises(obj, x, residual=None):
        x.zero_()
        if residual is not None:
            residual.zero_()
        raise RuntimeError("out of registers")

    def wrong_shape(obj, x):
        return x

    def wrong_dtype(obj, query, key, cos, sin, position_ids, rotary_interleaved=False, inplace=True):
        return query.half(), key.half()

    KERNELS = {"rms_norm": overwrites_and_raises, "silu_and_mul": wrong_shape, "rotary_embedding": wrong_dtype}

    @hookimpl
    def sglang_fl_register_ops(platform):
        return [
            OpImpl(op=op, impl_id="vendor.acme", kind=BackendImplKind.VENDOR, vendor="acme", fn=fn)
            for op, fn in KERNELS.items()
        ]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    """What transformers answers."""
    llama = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    answer = llama.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None
    )
    return answer[0, len(PROMPT) :].tolist()


def _serve(model: Path, folder: Path, site: Path, **variables: str) -> Any:
    arguments = [
        "--model-path",
        str(model),
        "--skip-tokenizer-init",
        "--dtype",
        "float32",
        "--max-total-tokens",
        "2048",
    ]
    return serve(arguments, folder / "server.log", env=_environ(site, variables))


def _environ(site: Path, variables: Mapping[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_FL_")}
    return {**ours, "PYTHONPATH": str(site), **variables}


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server among every broken third party, that traces all."""
    folder = tmp_path_factory.mktemp("server")
    for name, source in BROKEN.items():
        third_party(folder, name, source)
    site = third_party(folder, "bad-kernels", BAD_KERNELS)
    variables = {"SGLANG_FL_TRACE": "hooks,select,calls", "SGLANG_FL_TRACE_DIR": str(folder / "trace")}
    variables["SGLANG_FL_PREFER"] = "vendor"
    variables["SGLANG_FL_DISPATCH_LOG"] = str(folder / "dispatch.log")
    with _serve(model, folder, site, **variables) as running:
        yield running


def _generate(server: Server) -> list[int]:
    sampling = {"temperature": 0, "max_new_tokens": TOKENS, "ignore_eos": True}
    with server.client() as client:
        answer = client.post("/generate", json={"input_ids": PROMPT, "sampling_params": sampling})
    return answer.raise_for_status().json()["output_ids"]


def _events(server: Server, kind: str) -> list[dict[str, Any]]:
    files = (server.log.parent / "trace").glob("*.jsonl")
    records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def test_the_answer_is_right_among_broken_plugins_and_kernels(server: Server, expected: list[int]) -> None:
    assert _generate(server) == expected


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_third_party_is_reported_and_left_out(server: Server, name: str) -> None:
    assert any("left out" in line and name in line for line in server.log_lines())


@pytest.mark.parametrize("op", ["rms_norm", "silu_and_mul", "rotary_embedding"])
def test_a_bad_kernel_is_quarantined_with_one_line(server: Server, op: str) -> None:
    _generate(server)
    lines = [line for line in server.log_lines() if f"{op}: vendor.acme of bad-kernels is quarantined" in line]
    assert len(lines) == 1


def test_the_quarantine_and_who_took_over_are_traced(server: Server) -> None:
    _generate(server)
    assert {event["op"] for event in _events(server, "quarantine")} == {"rms_norm", "silu_and_mul", "rotary_embedding"}
    called = {(event["op"], event["implementation"]) for event in _events(server, "call") if not event.get("raised")}
    assert ("rms_norm", "reference.torch") in called


def test_every_hook_call_of_every_process_is_traced(server: Server) -> None:
    hooks = {event["hook"] for event in _events(server, "hook")}
    assert {"sglang_fl_register_platforms", "sglang_fl_register_ops"} <= hooks
    assert len({event["pid"] for event in _events(server, "hook")}) > 1


def test_the_table_counts_the_layers_of_the_model(server: Server) -> None:
    (bound,) = _events(server, "bound")
    assert {row["op"]: row["layers"] for row in bound["rows"]} == {
        "rms_norm": 5,
        "rotary_embedding": 1,
        "silu_and_mul": 2,
    }


def test_the_dispatch_log_has_a_line_for_each_class(server: Server) -> None:
    lines = (server.log.parent / "dispatch.log").read_text().splitlines()
    assert sorted(lines) == [
        "[OOT-DISPATCH] RMSNorm → vendor(vendor.acme)",
        "[OOT-DISPATCH] RotaryEmbedding → vendor(vendor.acme)",
        "[OOT-DISPATCH] SiluAndMul → vendor(vendor.acme)",
    ]


def test_a_strict_start_ends_when_no_implementation_is_left(model: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match="ended with status"),
        _serve(model, tmp_path, tmp_path, SGLANG_FL_STRICT="1", SGLANG_FL_PREFER="vendor"),
    ):
        pass
    log = (tmp_path / "server.log").read_text()
    assert "sglang-fl-core: asked for an implementation of" in log
    assert "SGLANG_FL_STRICT" in log


def test_a_strict_start_ends_at_a_kernel_that_raises(model: Path, tmp_path: Path) -> None:
    site = third_party(tmp_path, "bad-kernels", BAD_KERNELS)
    variables = {"SGLANG_FL_STRICT": "1", "SGLANG_FL_PER_OP": "rms_norm=vendor"}
    with pytest.raises(ServerError, match="ended with status"), _serve(model, tmp_path, site, **variables):
        pass
    log = (tmp_path / "server.log").read_text()
    assert "vendor.acme: RuntimeError: out of registers" in log
