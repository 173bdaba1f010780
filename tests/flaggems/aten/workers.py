"""Programs that do a model worker's part: they activate the layer with their environment's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .wheel import search_path

ROOT = Path(__file__).parents[3]


def run(arguments: Sequence[str], variables: Mapping[str, str], path: Sequence[Path] = ()) -> Any:
    """The last line that this module prints as a program, as JSON."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SGLANG_FL")}
    ours["PYTHONPATH"] = os.pathsep.join([*map(str, path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", __name__, *arguments]
    done = subprocess.run(command, env={**ours, **variables}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def activated(environ: Mapping[str, str]) -> dict[str, Any]:
    """What activation comes to on CUDA: the ops replaced, or the error."""
    from sglang_fl import Platform, SglangFlError
    from sglang_fl.settings import load_settings
    from sglang_fl_flaggems.aten import layer

    from .conftest import DECLARED

    settings = load_settings(environ, DECLARED)
    cuda = Platform(name="cuda", device_type="cuda", is_available=lambda: True, in_tree=True)
    try:
        layer.activate(cuda, settings)
        return {"replaced": [row.name for row in layer.aten_ops(cuda, settings) if row.replaced], "error": None}
    except SglangFlError as error:
        return {"replaced": [], "error": str(error)}


def pretend_a_gpu() -> None:
    """Lets torch.cuda answer as with one H100, and Triton as 3.6: FlagGems is imported nowhere else.

    FlagGems and PyTorch's dispatcher stay as they are. A kernel cannot run.
    """
    from unittest.mock import MagicMock

    import torch
    import triton

    properties = SimpleNamespace(name="NVIDIA H100", major=9, minor=0, multi_processor_count=132, total_memory=80 << 30)
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "NVIDIA H100",
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    triton.__version__ = "3.6.0"
    triton.runtime.driver.set_active(MagicMock())


def in_a_fork(environ: Mapping[str, str]) -> dict[str, Any]:
    """What activation comes to in a process of its own, which has imported what this one has."""
    with tempfile.TemporaryFile("w+") as told:
        child = os.fork()
        if child == 0:
            json.dump(_tried(environ), told)
            told.flush()
            os._exit(0)
        os.waitpid(child, 0)
        told.seek(0)
        return json.load(told)  # type: ignore[no-any-return]


def _tried(environ: Mapping[str, str]) -> dict[str, Any]:
    import torch

    outcome = activated(environ)
    x = torch.ones(2)
    for op in (torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor):
        try:
            op.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA), x, x)
        except Exception as error:  # there is no GPU, so whichever kernel it is fails
            outcome.setdefault("failed", []).append(type(error).__name__)
    outcome["kernels"] = {key: _kernel(key) for key in ("add.Tensor", "add_.Tensor", "mul.Tensor", "mm")}
    return outcome


def _kernel(key: str) -> str:
    """The file whose kernel the dispatcher has for ``key`` on CUDA."""
    import torch

    lines = torch._C._dispatch_dump(f"aten::{key}").splitlines()
    (line,) = [line for line in lines if line.startswith("CUDA: ")]
    return line.split(" at ")[1].split(" ::")[0].rpartition(":")[0]


def computed() -> dict[str, Any]:
    """What activation comes to on this machine's GPU, and how far off each op's result then is, by float64."""
    import torch

    outcome = activated(os.environ)
    torch.manual_seed(0)
    x, y = (torch.randn(64, 96, dtype=torch.float64) for _ in range(2))
    rows = torch.tensor([3, 1, 63, 0])
    calls = {
        "add": lambda a, b, i: a + b,
        "add_": lambda a, b, i: a.clone().add_(b),
        "mul": lambda a, b, i: a * b,
        "mul_broadcast": lambda a, b, i: a[:, :1] * b[:1],
        "fill_strided": lambda a, b, i: a.clone().t()[::2].fill_(0.5).t(),
        "mm": lambda a, b, i: a @ b.t(),
        "softmax": lambda a, b, i: torch.softmax(a, -1),
        "cat": lambda a, b, i: torch.cat([a, b]),
        "sum_dim": lambda a, b, i: a.sum(-1),
        "embedding": lambda a, b, i: torch.nn.functional.embedding(i, a),
    }
    for name, call in calls.items():
        expected = call(x, y, rows)
        found = call(x.float().cuda(), y.float().cuda(), rows.cuda()).cpu().double()
        outcome.setdefault("errors", {})[name] = ((found - expected).abs().max() / expected.abs().max()).item()
    return outcome


def settings_and_activation() -> tuple[dict[str, Any], str | None]:
    """The backends' settings in this process, and the error of activation, as a worker of SGLang would have them."""
    from sglang_fl import SglangFlError
    from sglang_fl.session import session

    try:
        session().activate()
    except SglangFlError as error:
        return dict(session().settings.of_backends), str(error)
    return dict(session().settings.of_backends), None


def _main(cases: str = "") -> None:
    if cases:
        pretend_a_gpu()
        import flag_gems  # noqa: F401 - once for all cases

        print(json.dumps([in_a_fork(case) for case in json.loads(cases)]))
    else:
        print(json.dumps(computed()))


def pretended(cases: Sequence[Mapping[str, str]], scratch: Path) -> list[dict[str, Any]]:
    """What activation comes to in each case, on a machine that pretends to have a GPU."""
    variables = {"GEMS_VENDOR": "nvidia", "FLAGGEMS_CACHE_DIR": str(scratch / "cache"), "HOME": str(scratch)}
    return run([json.dumps(cases)], variables, [search_path()])  # type: ignore[no-any-return]


if __name__ == "__main__":
    _main(*sys.argv[1:])
