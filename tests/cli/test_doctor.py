from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sglang_fl.adapter import seams
from sglang_fl.cli.variables import check_variables
from sglang_fl.cli.versions import check_versions
from sglang_fl.records import Diagnosis, Platform, always
from sglang_fl.settings import Settings
from tests.cli.conftest import Cli, Install
from tests.cli.vendors import ACME, DIAGNOSING, FAILING_LATE, UNABLE_TO_IMPORT, WITH_ATEN_OPS
from tests.third_parties import third_party

Distributed = Callable[..., None]


@pytest.fixture
def distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distributed:
    """Puts a distribution's metadata before those that are installed."""

    def add(name: str, version: str, *requires: str, python: str = ">=3.10") -> None:
        info = tmp_path / f"{name} {version}" / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires), ""]))
        monkeypatch.syspath_prepend(info.parent)

    return add


@pytest.fixture
def fit(distributed: Distributed) -> None:
    """What is installed fits together."""
    requires = (
        "torch==9.1",
        "transformers==5.0; python_version>'3'",
        "sglang-kernel==0.4",
        'torch==1.0; extra == "old"',
    )
    distributed("sglang", str(seams.PRIMARY), *requires)
    distributed("torch", "9.1+acme", "triton==3.9")
    distributed("triton", "3.9")
    distributed("transformers", "5.0")
    distributed("sglang-kernel", "0.4")


def lines(cli: Cli) -> dict[str, dict[str, Any]]:
    return {line["subject"]: line for line in json.loads(cli("doctor", "--json").stdout)["lines"]}


def found(diagnoses: Any, subject: str) -> Diagnosis:
    return next(each for each in diagnoses if each.subject == subject)


@pytest.mark.usefixtures("fit")
def test_nothing_fails_where_everything_fits(cli: Cli) -> None:
    result = cli("doctor")

    assert result.exit_code == 0, result.stdout
    assert result.stdout.splitlines()[-1].startswith("0 of ")


@pytest.mark.usefixtures("fit")
def test_exit_status_is_1_where_something_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_PLUGINS", "other")

    printed, plain = cli("doctor"), cli("doctor", "--json")

    assert (printed.exit_code, plain.exit_code) == (1, 1)
    assert printed.stdout.splitlines()[-1].startswith("1 of ")
    assert json.loads(plain.stdout)["failed"] == 1


@pytest.mark.usefixtures("fit")
def test_versions_that_fit_are_ok() -> None:
    checked = {each.subject: (each.ok, each.found) for each in check_versions("cuda")}

    assert checked.pop("Python") == (True, ".".join(map(str, sys.version_info[:3])))
    assert checked == {
        "SGLang": (True, str(seams.PRIMARY)),
        "torch": (True, "9.1+acme"),
        "transformers": (True, "5.0"),
        "triton": (True, "3.9"),
        "sglang-kernel": (True, "0.4"),
    }


@pytest.mark.usefixtures("fit")
@pytest.mark.parametrize("name", ["torch", "triton", "sglang-kernel", "transformers"])
def test_other_version_than_required_fails_with_the_command_that_mends_it(distributed: Distributed, name: str) -> None:
    required = found(check_versions("cuda"), name).found.removesuffix("+acme")
    distributed(name, "0.0.1", *(["triton==3.9"] if name == "torch" else []))

    wrong = found(check_versions("cuda"), name)

    by = {"triton": "torch 9.1+acme"}.get(name, f"sglang {seams.PRIMARY}")
    assert (wrong.ok, wrong.found) == (False, "0.0.1")
    assert wrong.wanted == f"=={required}, as {by} requires"
    assert wrong.remedy == f'pip install "{name}=={required}"'


@pytest.mark.usefixtures("fit")
def test_other_torch_is_only_noted_on_a_device_whose_vendor_builds_torch(distributed: Distributed) -> None:
    distributed("torch", "2.8")

    noted = found(check_versions("npu"), "torch")

    assert (noted.ok, noted.found, noted.remedy) == (None, "2.8", "")
    assert noted.wanted.startswith("==9.1, as sglang ")


@pytest.mark.parametrize("version", ["0.5.16", "0.6.0"])
def test_sglang_that_the_adapter_does_not_know_fails(distributed: Distributed, version: str) -> None:
    distributed("sglang", version)

    sglang = found(check_versions("cpu"), "SGLang")

    assert (sglang.ok, sglang.wanted) == (False, f"SGLang {seams.OLDEST} to {seams.NEWEST}")
    assert sglang.remedy == f"pip install sglang=={seams.PRIMARY}"


def test_python_that_sglang_does_not_take_fails(distributed: Distributed) -> None:
    distributed("sglang", str(seams.PRIMARY), python=">=4")

    python = found(check_versions("cpu"), "Python")

    assert (python.ok, python.wanted) == (False, ">=4, as sglang requires")


def test_missing_sglang_fails_and_the_rest_is_still_told(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    installed = [path for entry in sys.path if "packages" in entry for path in Path(entry).iterdir()]
    for path in installed:
        if not path.name.startswith("sglang-") and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    program = (
        "import site, sys; site.addsitedir(sys.argv[1])\n"
        "from sglang_fl.cli.versions import check_versions\n"
        "for each in check_versions('cuda'): print(each.subject, each.ok, each.found, each.remedy, sep='|')"
    )

    result = subprocess.run(
        [sys.executable, "-S", "-c", program, site], capture_output=True, text=True, check=False, env={}
    )

    assert result.stderr == ""
    told = dict(line.split("|", 1) for line in result.stdout.splitlines())
    assert told["SGLang"] == 'False|not installed|pip install "sglang-fl-core[sglang]"'
    assert told["torch"].startswith("None|")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("SGLANG_PLUGINS", "other, more", "export SGLANG_PLUGINS=other,more,sglang_fl"),
        ("SGLANG_PLATFORM", "other", "unset SGLANG_PLATFORM"),
        ("SGLANG_USE_CPU_ENGINE", "1", "unset SGLANG_USE_CPU_ENGINE"),
        ("SGLANG_FORCE_FUSED_OP_BACKEND", "torch", "unset SGLANG_FORCE_FUSED_OP_BACKEND"),
    ],
)
def test_variable_that_disables_us_fails(variable: str, value: str, remedy: str) -> None:
    (line,) = check_variables({variable: value}, Settings(), None)

    assert (line.subject, line.ok, line.remedy) == (variable, False, remedy)
    assert value in line.found


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SGLANG_PLUGINS", "other, sglang_fl"),
        ("SGLANG_PLUGINS", ""),
        ("SGLANG_PLATFORM", "sglang_fl"),
        ("SGLANG_PLATFORM", ""),
        ("SGLANG_USE_CPU_ENGINE", "0"),
    ],
)
def test_variable_that_lets_us_serve_is_not_mentioned(variable: str, value: str) -> None:
    assert list(check_variables({variable: value}, Settings(), None)) == []


def test_asking_for_our_platform_where_sglang_has_its_own_fails() -> None:
    cuda = Platform(name="cuda", device_type="cuda", is_available=always, in_tree=True)

    (line,) = check_variables({"SGLANG_PLATFORM": "sglang_fl"}, Settings(), cuda)

    assert (line.ok, line.remedy) == (False, "unset SGLANG_PLATFORM")


def test_forced_backend_is_none_of_our_business_where_we_serve_no_ops() -> None:
    assert list(check_variables({"SGLANG_FORCE_FUSED_OP_BACKEND": "torch"}, Settings(oot_enabled=False), None)) == []


def test_being_switched_off_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_ENABLED", "0")

    off = lines(cli)["SGLANG_FL_ENABLED"]

    assert (off["ok"], off["remedy"]) == (False, "unset SGLANG_FL_ENABLED")


def test_diagnoses_of_a_plugin_come_with_its_distribution(cli: Cli, install: Install) -> None:
    install("acme-chip", ACME)

    told = lines(cli)

    assert (told["acme.ko"]["by"], told["acme.ko"]["ok"], told["acme.ko"]["found"]) == ("acme-chip", True, "7.1")
    assert told["fan"]["ok"] is None
    assert "acme.ko (acme-chip)" in cli("doctor").stdout


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (UNABLE_TO_IMPORT, "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        (FAILING_LATE, "RuntimeError: libacme.so.1 is of another CUDA"),
        (
            "from sglang_fl import hookimpl\n@hookimpl\ndef sglang_fl_diagnose(): return 7",
            "7, which is no list of records",
        ),
    ],
)
@pytest.mark.parametrize("strict", ["0", "1"])
def test_broken_plugin_fails_once(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch, source: str, reason: str, strict: str
) -> None:
    install("broken-chip", source)
    monkeypatch.setenv("SGLANG_FL_STRICT", strict)

    told = json.loads(cli("doctor", "--json").stdout)["lines"]

    (broken,) = [line for line in told if "broken_chip" in line["subject"]]
    assert (broken["ok"], broken["found"]) == (False, reason)
    assert broken["remedy"].endswith("SGLANG_FL_DISABLED_PLUGINS=broken_chip")


@pytest.mark.parametrize(
    ("variable", "value", "subject", "remedy"),
    [
        ("SGLANG_FL_PREFER", "vendr", "settings", "did you mean 'vendor'?"),
        ("SGLANG_FL_CONFIG", "missing.yaml", "settings", "give the path of a YAML file"),
        ("SGLANG_FL_DISABLED_PLUGINS", "a;b", "settings", "separate names by commas"),
        ("SGLANG_FL_PLATFORM", "cpo", "platform", "did you mean 'cpu'?"),
    ],
)
def test_what_stops_sglang_is_one_failed_line_among_the_others(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, subject: str, remedy: str
) -> None:
    monkeypatch.setenv(variable, value)

    told = lines(cli)

    assert (told[subject]["ok"], told[subject]["remedy"][: len(remedy)]) == (False, remedy)
    assert "SGLang" in told


def test_op_that_nothing_may_serve_fails(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")
    monkeypatch.setenv("SGLANG_FL_PER_OP", "rms_norm=vendor")

    told = lines(cli)

    assert told["silu_and_mul"]["found"] == "reference.torch of sglang-fl-core"
    assert not told["rms_norm"]["ok"]
    assert told["rms_norm"]["wanted"] == "an implementation of rms_norm (order vendor from SGLANG_FL_PER_OP)"


def test_platform_comes_with_why_it_was_chosen(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_FL_PLATFORM", "cpu")

    told = lines(cli)

    assert told["platform"]["found"].startswith("cpu, named by SGLANG_FL_PLATFORM")
    assert told["settings"]["found"] == "set: platform (SGLANG_FL_PLATFORM)"


@pytest.mark.parametrize("command", ["doctor", "plugins"])
def test_torch_that_cannot_be_imported_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    script = Path(sys.executable).with_name("sglang-fl")

    result = subprocess.run(
        [script, command], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert result.stdout.count("ImportError: libcudart.so.13: cannot open shared object file") == 1
    assert 'pip install --force-reinstall "torch==' in result.stdout + result.stderr
    assert "reference" in result.stdout


def test_installed_script_tells_what_is_broken_and_never_imports_sglang(tmp_path: Path) -> None:
    site = third_party(tmp_path, "broken-chip", UNABLE_TO_IMPORT)
    (site / "sglang.py").write_text("raise SystemExit('the command line imports sglang')")
    script = Path(sys.executable).with_name("sglang-fl")

    result = subprocess.run(
        [script, "doctor"], env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert "No module named 'a_module_that_nobody_has'" in result.stdout
    assert result.stderr == ""


@pytest.mark.usefixtures("fit")
def test_how_many_of_pytorchs_own_ops_are_replaced_is_told(cli: Cli, install: Install) -> None:
    install("acme-chip", WITH_ATEN_OPS)
    told = lines(cli)["ATen ops"]
    assert (told["ok"], told["found"].split(" that ")[0]) == (True, "2 of 3")


def test_a_plugin_that_cannot_replace_pytorchs_own_ops_tells_its_lines_all_the_same(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-chip", WITH_ATEN_OPS + DIAGNOSING)
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")
    assert lines(cli)["acme.ko"]["found"] == "7.1"


def test_what_would_end_a_worker_when_it_replaces_pytorchs_own_ops_fails(
    cli: Cli, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme-chip", WITH_ATEN_OPS)
    monkeypatch.setenv("SGLANG_FL_STRICT", "1")
    failed = next(line for name, line in lines(cli).items() if "acme_chip" in name)
    assert [failed[key] for key in ("ok", "found", "remedy")] == [False, "none", "wait"]
    assert failed["wanted"].endswith("for speed")
