from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sglang_fl.ops import CONTRACTS
from sglang_fl.testing.requirements import CAPABILITIES, Requirements, RequirementsError, load_requirements


def requirements(**claims: Any) -> Requirements:
    return Requirements(**{"plugin": "acme", "platform": "acme", "implementation": "vendor.acme", **claims})


def test_every_capability_is_open_unless_it_is_closed() -> None:
    closed = {"float32": "no unit for it"}
    claims = requirements(communicator="acme", closed=closed)
    assert {name for name in CAPABILITIES if claims.why_closed(name) is not None} == set(closed)
    assert claims.why_closed("float32") == "no unit for it"


def test_a_misspelt_capability_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequirementsError, match=r"'layer_nrom'.*did you mean 'layer_norm'"):
        requirements(closed={"layer_nrom": "none"})


@pytest.mark.parametrize("reason", ["", "  ", None, True])
def test_a_capability_is_not_closed_without_a_reason(reason: Any) -> None:
    with pytest.raises(RequirementsError, match="say why"):
        requirements(closed={"float16": reason})


def test_what_is_not_named_is_closed() -> None:
    no_ops = requirements(implementation=None, communicator="acme")
    assert all(no_ops.why_closed(op) == "requirements.py names no implementation" for op in CONTRACTS)
    assert requirements().why_closed("collectives") == "requirements.py names no communicator"


def test_something_must_be_named() -> None:
    with pytest.raises(RequirementsError, match="name one or both"):
        requirements(implementation=None)


@pytest.mark.parametrize("half", [{"device": "cpu"}, {"simulated_by": "Triton's interpreter"}])
def test_a_stand_in_says_where_and_what(half: dict[str, str]) -> None:
    with pytest.raises(RequirementsError, match="give both"):
        requirements(**half)


def test_one_module_is_no_tuple_of_modules() -> None:
    with pytest.raises(RequirementsError, match=r"sdk=\('acme_sdk',\)"):
        requirements(sdk="acme_sdk")


def test_each_folder_has_its_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "requirements.py").write_text(
            "from sglang_fl.testing import Requirements\n"
            f"requirements = Requirements(plugin={name!r}, platform='cpu', implementation={name!r})\n"
        )
    assert [load_requirements(tmp_path / name).plugin for name in ("one", "two")] == ["one", "two"]


def test_a_folder_without_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(RequirementsError, match=r"no requirements.py.*write one beside"):
        load_requirements(tmp_path)


def test_a_file_without_the_variable_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "requirements.py").write_text("requirement = None\n")
    with pytest.raises(RequirementsError, match="write requirements = Requirements"):
        load_requirements(tmp_path)
