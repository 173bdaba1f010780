from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sglang_fl.errors import PlatformError, PluginError, SettingsError, SglangFlError
from sglang_fl.session import Session
from sglang_fl.trace_report import read_report

from ..third_parties import third_party
from .samples import run_python, silu_and_mul

HEAD = "from sglang_fl import *\nV = BackendImplKind.VENDOR\n"
X = torch.ones(2, 8)
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution in this process until the test is over; its source follows ``HEAD``."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield lambda name, source: third_party(tmp_path, name, HEAD + source)
    for name in set(sys.modules) - before:
        if name.endswith("_chip"):
            del sys.modules[name]


def start(**variables: str) -> Session:
    return Session.start({"SGLANG_FL_PLATFORM": "cpu"} | {f"SGLANG_FL_{k}": v for k, v in variables.items()})


OPS = "@hookimpl\ndef sglang_fl_register_ops(platform):\n    return [{}]\n"
ONE = "OpImpl(op='silu_and_mul', impl_id='vendor.acme', kind=V, vendor='acme', fn='tests.core.samples:silu_and_mul')"
GOOD = OPS.format(ONE)


def test_a_trace_directory_without_a_trace_is_told_to_be_in_vain(caplog: pytest.LogCaptureFixture) -> None:
    start(TRACE_DIR="somewhere")
    assert "trace_dir (SGLANG_FL_TRACE_DIR) is in vain: trace is empty" in caplog.text


def test_alone_the_core_serves_every_op_with_the_reference() -> None:
    made = start(DISABLED_PLUGINS="")
    chosen = {c.impl.op: made.dispatcher.select(c.impl.op).require()[-1].impl.impl_id for c in made.candidates}
    assert len(chosen) == 7
    assert set(chosen.values()) == {"reference.torch"}
    assert made.platform.name == "cpu"


def test_what_a_plugin_offers_serves(install: Install) -> None:
    install("acme-chip", GOOD)
    made = start(PREFER="vendor")
    assert made.dispatcher.resolve("silu_and_mul") is silu_and_mul
    verdict = made.dispatcher.select("silu_and_mul").verdicts[0]
    assert (verdict.candidate.distribution, verdict.reason) == ("acme-chip", "preferred by SGLANG_FL_PREFER")


BROKEN = [
    "raise RuntimeError('no driver')",
    "@hookimpl\ndef sglang_fl_register_platforms():\n    raise RuntimeError('no driver')",
    "@hookimpl\ndef sglang_fl_register_platforms():\n    return [Platform(name='x', device_type='x')]",
    "@hookimpl\ndef sglang_fl_register_ops(platform):\n    return 5",
    OPS.format("OpImpl(op='silu_mul', impl_id='a', kind=V, vendor='acme', fn='m:f')"),
    OPS.format("OpImpl(op='silu_and_mul', impl_id='a', kind=V, vendor='acme', fn='m:f', priority=-1)"),
    "@hookimpl\ndef sglang_fl_register_communicators(platform):\n    return 'flagcx'",
    "@hookimpl\ndef sglang_fl_register_settings():\n    return [Setting(key='x', type=bool, default=0, help='')]",
    "@hookimpl\ndef sglang_fl_register_settings():\n    return [Setting(key='prefer', type=str, default='', help='x')]",
    "@hookimpl\ndef sglang_fl_register_settings():\n    return [Setting(key='x', type=list, default=[], help='x')]",
    "@hookimpl\ndef sglang_fl_register_settings():\n    return [Setting(key='x', type=int, default='a', help='x')]",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return 5",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return [('prefer', 'vendor')]",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return {'prefr': 'vendor'}",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return {'prefer': 'vendr'}",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return {5: 'vendor'}",
    "@hookimpl\ndef sglang_fl_default_settings(platform):\n    raise OSError('bus')",
]


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_plugin_is_reported_and_fatal_only_when_strict(install: Install, source: str) -> None:
    install("bad-chip", source)
    install("good-chip", GOOD)
    made = start(PREFER="vendor")
    (problem,) = made.plugins.problems
    assert "plugin 'bad_chip' of bad-chip 1.0" in str(problem)
    assert made.dispatcher.resolve("silu_and_mul") is silu_and_mul
    with pytest.raises(PluginError, match="plugin 'bad_chip' of bad-chip"):
        start(PREFER="vendor", STRICT="1")


def test_a_plugin_that_is_left_out_after_its_ops_were_taken_serves_none_of_them(install: Install) -> None:
    late = "\n@hookimpl\ndef sglang_fl_register_communicators(platform):\n    raise OSError('bus')\n"
    install("acme-chip", GOOD + late)
    made = start()
    assert [problem.found for problem in made.plugins.problems] == ["OSError: bus"]
    assert {candidate.plugin for candidate in made.candidates} == {"reference"}
    assert made.dispatcher.select("silu_and_mul").require()[0].impl.impl_id == "reference.torch"


def test_a_plugin_without_defaults_for_the_platform_may_answer_nothing(install: Install) -> None:
    install("acme-chip", "@hookimpl\ndef sglang_fl_default_settings(platform):\n    return None\n")
    assert start().plugins.problems == []


def test_a_plugins_settings_and_defaults_take_effect(install: Install) -> None:
    install(
        "acme-chip",
        "@hookimpl\ndef sglang_fl_register_settings():\n"
        "    return [Setting(key='acme_queues', type=int, default=1, help='queues')]\n"
        "@hookimpl\ndef sglang_fl_default_settings(platform):\n"
        "    return {'acme_queues': 4, 'prefer': 'vendor'}\n",
    )
    assert start().settings.of_backends["acme_queues"] == 4
    assert start().settings.prefer == "vendor"
    assert start(ACME_QUEUES="2").settings.of_backends["acme_queues"] == 2
    assert "acme-chip" in str(start().settings.origin("prefer"))


def test_two_plugins_that_declare_one_setting_are_an_error_naming_both(install: Install) -> None:
    for name in ("one-chip", "two-chip"):
        install(
            name,
            "@hookimpl\ndef sglang_fl_register_settings():\n"
            "    return [Setting(key='queues', type=int, default=1, help='queues')]\n",
        )
    with pytest.raises(SettingsError, match=r"two-chip.*queues.*one-chip"):
        start()


def test_two_plugins_whose_defaults_differ_are_an_error_naming_both(install: Install) -> None:
    for name, kind in (("one-chip", "vendor"), ("two-chip", "reference")):
        install(name, f"@hookimpl\ndef sglang_fl_default_settings(platform):\n    return {{'prefer': '{kind}'}}\n")
    with pytest.raises(SettingsError, match=r"prefer.*one-chip.*two-chip"):
        start()


def test_one_implementation_of_two_plugins_is_an_error_naming_both(install: Install) -> None:
    install("one-chip", GOOD)
    install("two-chip", GOOD)
    with pytest.raises(PluginError, match=r"'one_chip' of one-chip 1.0 and plugin 'two_chip' of two-chip 1.0"):
        start()
    assert start(DISABLED_PLUGINS="two_chip").plugins.problems == []


def test_a_disabled_plugin_is_not_imported(install: Install) -> None:
    install("off-chip", "raise RuntimeError")
    assert start(DISABLED_PLUGINS="off_chip").plugins.problems == []
    assert "off_chip" not in sys.modules


def test_an_unknown_platform_is_an_error_with_the_nearest() -> None:
    with pytest.raises(PlatformError, match=r"'cpuu' \(SGLANG_FL_PLATFORM\); found no such platform.*mean 'cpu'"):
        start(PLATFORM="cpuu")


def test_an_unknown_vendor_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"SGLANG_FL_DENY_VENDORS.*the vendor 'nobody'"):
        start(DENY_VENDORS="nobody")


ACTIVATE = "@hookimpl\ndef sglang_fl_activate(platform, settings):\n    {}\n"


def test_activation_reaches_each_plugin_with_the_platform_and_the_settings(install: Install) -> None:
    site = install("acme-chip", "seen = []\n" + ACTIVATE.format("seen.append((platform, settings))"))
    made = start()
    made.activate()
    assert sys.modules["acme_chip"].seen == [(made.platform, made.settings)]
    assert site.exists()


def test_a_failed_activation_is_an_error_that_names_the_plugin_that_failed(install: Install) -> None:
    install("acme-chip", ACTIVATE.format("raise OSError('half done')"))
    install("z-chip", "raise RuntimeError('another problem, from the start')")
    with pytest.raises(PluginError, match=r"plugin 'acme_chip' .* sglang_fl_activate; found OSError: half done"):
        start().activate()


def test_a_problem_from_the_start_does_not_make_activation_fail(install: Install) -> None:
    install("z-chip", "raise RuntimeError")
    start().activate()


@pytest.mark.parametrize("hook", ["activate", "aten_ops"])
def test_what_a_plugin_says_to_the_user_reaches_the_user_as_it_is(install: Install, hook: str) -> None:
    said = "raise SglangFlError('acme', asked='speed', found='none', do='wait')"
    install("acme-chip", f"@hookimpl\ndef sglang_fl_{hook}(platform, settings):\n    {said}\n")
    with pytest.raises(SglangFlError) as caught:
        start().activate()
    assert str(caught.value) == "acme: asked for speed; found none. To do: wait"


ATEN = """
done = []
@hookimpl
def sglang_fl_activate(platform, settings):
    done.append("add.Tensor")
@hookimpl
def sglang_fl_aten_ops(platform, settings):
    return [AtenOp(name=name, by="acme.f", replaced=name in done, reason="why") for name in ("add.Tensor", "mm")]
"""


def test_the_ops_of_pytorchs_own_that_activation_replaced_are_logged_and_traced(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install("acme-chip", ATEN)
    made = start(TRACE="select", TRACE_DIR=str(tmp_path / "trace"))
    assert [offer.record.replaced for offer in made.aten_ops() if offer.plugin.name == "acme_chip"] == [False, False]
    with caplog.at_level("INFO"):
        made.activate()
    assert "acme-chip serves 1 overloads of PyTorch's ATen ops: add" in caplog.messages
    (row,) = read_report([tmp_path / "trace"]).aten
    assert row.what == {"distribution": "acme-chip", "ops": ("add.Tensor",)}


IMPATIENT = "@hookimpl\ndef sglang_fl_register_ops(platform):\n    return [OpImpl(fn=resolve_op('rms_norm'))]\n"


def test_a_hook_that_calls_for_an_op_before_there_are_any_is_left_out_with_the_reason(tmp_path: Path) -> None:
    site = third_party(tmp_path, "impatient-chip", HEAD + IMPATIENT)
    program = "from sglang_fl.session import session\nprint(session().plugins.problems[0])"
    done = run_python(program, site=site)
    assert "plugin 'impatient_chip'" in done.stdout, done.stderr
    assert "the plugins are still being loaded" in done.stdout


SLOW = """
import os, threading
started = threading.Event()
@hookimpl
def sglang_fl_register_platforms():
    import time
    print("asked", flush=True)
    started.set()
    time.sleep(0.5)
    return []
"""
AT_ONCE = """
import os, threading
import slow_chip, torch
from concurrent.futures import ThreadPoolExecutor
from sglang_fl import call_op
from sglang_fl.session import session

torch.set_num_threads(1)
x = torch.ones(2, 8)
with ThreadPoolExecutor(4) as pool:
    made = [pool.submit(session) for _ in range(4)]
    slow_chip.started.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if call_op("silu_and_mul", None, x).shape == (2, 4) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len({id(one.result()) for one in made}))
"""


def test_threads_and_forks_that_meet_at_the_start_get_one_session(tmp_path: Path) -> None:
    done = run_python(AT_ONCE, site=third_party(tmp_path, "slow-chip", HEAD + SLOW))
    assert done.stdout == "asked\n0 1\n", done.stderr


def test_every_error_of_the_start_is_one_of_ours() -> None:
    for variables in ({"PREFER": "x"}, {"CONFIG": "/nowhere.yaml"}, {"NOTHING": "1"}, {"TRACE": "x"}):
        with pytest.raises(SglangFlError):
            start(**variables)


def test_a_call_through_the_session_falls_back(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("bad-chip", OPS.format(ONE.replace("silu_and_mul')", "broken')")))
    made: Any = start()
    assert made.dispatcher.call("silu_and_mul", None, X).shape == (2, 4)
    assert [link.candidate.distribution for link in made.dispatcher.quarantined] == ["bad-chip"]
    assert len(caplog.records) == 1
