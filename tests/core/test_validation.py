from __future__ import annotations

from pathlib import Path

import pytest

from sglang_fl.errors import SettingsError
from sglang_fl.layers import LAYER_NAMES
from sglang_fl.ops import CONTRACTS
from sglang_fl.plugins import Offer, Plugin
from sglang_fl.records import Communicator
from sglang_fl.settings import load_settings
from sglang_fl.validation import validate

from ..third_parties import third_party
from .samples import CPU, candidate, reference

OFFERED = [candidate("vendor.ascend", vendor="ascend"), candidate("vendor.cuda", vendor="cuda"), reference()]
PLUGIN = Plugin("acme", "acme-chip", "1")
COMMUNICATORS = [
    Offer(Communicator(name="flagcx", create="flagcx:create"), PLUGIN),
    Offer(Communicator(name="acmecl", create="acme:create", vendor="acmecl"), PLUGIN),
]


def check(**variables: str) -> None:
    validate(
        load_settings({f"SGLANG_FL_{key}": value for key, value in variables.items()}), CPU, OFFERED, COMMUNICATORS
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ALLOW_VENDORS", "ascend,cuda"),
        ("DENY_VENDORS", "cuda"),
        ("OOT_BLACKLIST", "RMSNorm,rms_norm"),
        ("OOT_WHITELIST", "YaRNScalingRotaryEmbedding"),
        ("PER_OP", "silu_and_mul=vendor:cuda|impl:vendor.ascend|flagos|reference;rms_norm=vendor"),
        ("DIST_BACKEND", "gloo"),
        ("DIST_BACKEND", "flagcx"),
        ("DENY_VENDORS", "acmecl"),
        ("PLATFORM", "nowhere"),  # that is for whoever chooses the platform
        ("TRACE", "calls"),
    ],
)
def test_names_that_exist_pass(key: str, value: str) -> None:
    check(**{key: value})


@pytest.mark.parametrize("name", [*CONTRACTS, *LAYER_NAMES])
def test_every_layer_and_op_may_be_listed(name: str) -> None:
    check(OOT_BLACKLIST=name)
    check(OOT_WHITELIST=name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ALLOW_VENDORS", "cuda,ascnd", "the vendor 'ascnd'; found no such vendor.*mean 'ascend'"),
        ("DENY_VENDORS", "cda", "the vendor 'cda'; found no such vendor.*mean 'cuda'"),
        ("OOT_BLACKLIST", "RMSNrm", "the layer class or op 'RMSNrm'; found no such.*mean 'RMSNorm'"),
        ("OOT_WHITELIST", "silu_mul", "the layer class or op 'silu_mul'; found no such.*mean 'silu_and_mul'"),
        ("PER_OP", "rmsnorm=vendor", "the op 'rmsnorm'; found no such op.*mean 'rms_norm'"),
        (
            "PER_OP",
            "silu_and_mul=vendor:ascnd",
            "the vendor of silu_and_mul 'ascnd'; found no such vendor of silu_and_mul.*mean 'ascend'",
        ),
        ("PER_OP", "rms_norm=vendor:cuda", "the vendor of rms_norm 'cuda'; found no such vendor of rms_norm"),
        ("PER_OP", "silu_and_mul=vendor:acmecl", "the vendor of silu_and_mul 'acmecl'; found no such vendor"),
        (
            "PER_OP",
            "silu_and_mul=impl:vendor.asend",
            "the implementation of silu_and_mul 'vendor.asend'; found no such implementation.*mean 'vendor.ascend'",
        ),
        ("PER_OP", "rms_norm=impl:vendor.cuda", "the implementation of rms_norm 'vendor.cuda'.*nothing is offered"),
        ("DISABLED_PLUGINS", "referense", "the plugin 'referense'; found no such plugin"),
        ("DIST_BACKEND", "glo", "the communicator 'glo'; found no such communicator on platform cpu.*mean 'gloo'"),
        ("DIST_BACKEND", "flagx", "the communicator 'flagx'; found no such communicator.*mean 'flagcx'"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_setting_and_the_nearest(key: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"SGLANG_FL_{key}.*: asked for {message}"):
        check(**{key: value})


def test_the_reference_cannot_be_disabled() -> None:
    with pytest.raises(SettingsError, match=r"SGLANG_FL_DISABLED_PLUGINS.*'reference'; found that it is core's own"):
        check(DISABLED_PLUGINS="reference")


def test_a_dispatch_log_that_cannot_be_written_is_an_error_before_a_model_loads(tmp_path: Path) -> None:
    for log, found in ((tmp_path, "a folder"), (tmp_path / "none" / "my.log", "no such folder")):
        with pytest.raises(SettingsError, match=rf"SGLANG_FL_DISPATCH_LOG.*to write to {log}; found {found}"):
            check(DISPATCH_LOG=str(log))
    (tmp_path / "old.log").touch()
    check(DISPATCH_LOG=str(tmp_path / "old.log"))
    check(DISPATCH_LOG=str(tmp_path / "new.log"))


@pytest.mark.parametrize(("key", "vendors"), [("DENY_VENDORS", "acmecl"), ("ALLOW_VENDORS", "cuda")])
def test_naming_a_communicator_whose_vendor_may_not_serve_is_an_error(key: str, vendors: str) -> None:
    with pytest.raises(SettingsError, match=rf"SGLANG_FL_DIST_BACKEND.*vendor acmecl is .* by SGLANG_FL_{key}"):
        check(DIST_BACKEND="acmecl", **{key: vendors})


def test_the_error_says_in_which_file_the_name_stands(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("op_backends: {rmsnorm: [vendor]}")
    with pytest.raises(SettingsError, match=rf"op_backends \({path}: op_backends\): asked for the op 'rmsnorm'"):
        check(CONFIG=str(path))


def test_an_installed_plugin_may_be_disabled_though_it_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(third_party(tmp_path, "off-chip", "raise RuntimeError"))
    check(DISABLED_PLUGINS="off_chip")
    with pytest.raises(SettingsError, match=r"the plugin 'of_chip'.*did you mean 'off_chip'"):
        check(DISABLED_PLUGINS="of_chip")
