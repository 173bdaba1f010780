from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sglang_fl.errors import SettingsError
from sglang_fl.settings import load_settings
from sglang_fl.settings.model import CORE_SETTINGS
from sglang_fl_flaggems.aten.names import covered
from sglang_fl_flaggems.aten.settings import SETTINGS, refuse_what_is_in_vain
from sglang_fl_flaggems.aten.table import read_table
from tests.core.samples import run_python
from tests.flaggems.aten.wheel import search_path

DECLARED = [("sglang-fl-flaggems", setting) for setting in SETTINGS]
PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The page's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def default_shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_table_has_every_setting_with_its_variable_default_and_meaning() -> None:
    defaults = {row.key: default_shown(row.value) for row in load_settings({}, DECLARED).explain()}
    settings = (*CORE_SETTINGS, *SETTINGS)
    rows = [f"| `{one.key}` | `{one.variable}` | `{defaults[one.key]}` | {one.help} |" for one in settings]

    assert re.findall(r"^\| `.*\|$", PAGE, flags=re.MULTILINE) == rows


def changes(variables: dict[str, str]) -> set[str]:
    """The keys that have another value than their default by these variables, which mean something together."""
    settings, default = load_settings(variables, DECLARED), load_settings({}, DECLARED)
    refuse_what_is_in_vain(settings)
    released = read_table(search_path() / "flag_gems")
    for key in ("flagos_whitelist", "flagos_blacklist"):
        assert all(covered(name, released) for name in settings.of_backends[key])
    pairs = zip(settings.explain(), default.explain(), strict=True)
    return {row.key for row, unset in pairs if row.value != unset.value}


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_block_loads_and_changes_something(block: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(block, encoding="utf-8")

    assert changes({"SGLANG_FL_CONFIG": str(path)}) - {"config"}


@pytest.mark.parametrize("command", [line for block in blocks("bash") for line in block.splitlines()])
def test_variables_of_a_command_load_and_change_something(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.yaml").write_text("strict: true")
    monkeypatch.chdir(tmp_path)
    variables = dict(word.split("=", 1) for word in shlex.split(command) if re.match(r"[A-Z_]+=", word))

    assert changes(variables)


def test_python_block_calls_what_the_settings_select() -> None:
    checks = "assert torch.allclose(y, exact, rtol=1e-4) and torch.equal(function(norm, x), y)"
    done = run_python("\n".join([*blocks("python"), checks]))
    assert done.returncode == 0, done.stderr


CASES = {
    "a misspelt variable": ({"SGLANG_FL_PREFR": "vendor"}, None),
    "a misspelt key": ({}, "opbackends: {rms_norm: [vendor]}"),
    "a value that is not offered": ({"SGLANG_FL_PREFER": "vendr"}, None),
    "a malformed token": ({}, "op_backends: {rms_norm: [vendor, 'vendr:cuda']}"),
    "a wrong type": ({}, "oot_blacklist:"),
    "both lists": ({"SGLANG_FL_OOT_BLACKLIST": "RMSNorm", "SGLANG_FL_OOT_WHITELIST": "SiluAndMul"}, None),
    "a missing file": ({"SGLANG_FL_CONFIG": "missing.yaml"}, None),
    "no mapping": ({}, "- prefer"),
    "bad syntax": ({}, "prefer: vendor\nallow_vendors: [ascend"),
    "a key set twice": ({}, "prefer: vendor\nstrict: true\nprefer: flagos"),
    "a backend's setting without it": ({"USE_FLAGGEMS": "0"}, None),
    "environment only": ({}, "enabled: false"),
}


def message(variables: dict[str, str], content: str | None) -> str:
    """The error of these settings, read in the working directory."""
    if content is not None:
        Path("my.yaml").write_text(content, encoding="utf-8")
        variables = {**variables, "SGLANG_FL_CONFIG": "my.yaml"}
    with pytest.raises(SettingsError) as caught:
        load_settings(variables)
    return str(caught.value).replace(str(Path.cwd()), "/srv")


def test_errors_shown_are_those_that_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    raised = [message(*case) for case in CASES.values()]

    assert [line for block in blocks("text") for line in block.splitlines()] == raised
