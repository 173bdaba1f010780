"""Hooks SGLang, through its own registry: where a layer picks its forward, where a worker loads its model, and, for a
communicator that goes before SGLang's own, the class of its groups."""

from __future__ import annotations

import logging
import pkgutil
import sys
from typing import Any

import wrapt
from packaging.version import Version
from sglang.srt.plugins.hook_registry import HookRegistry, HookSource, HookType

from sglang_fl.adapter import seams
from sglang_fl.adapter.binding import Binder
from sglang_fl.adapter.bridges.base import Forward
from sglang_fl.adapter.summary import check_and_report
from sglang_fl.errors import SeamError
from sglang_fl.plugins import CORE
from sglang_fl.session import Session

logger = logging.getLogger(__name__)

_SOURCE = HookSource(plugin_name="sglang_fl", dist_name=CORE)


def register_hooks(session: Session) -> None:
    """Registers what this process needs. Raises SeamError for an SGLang that lacks a hook's target, when strict."""
    logging.getLogger("sglang_fl").setLevel(session.settings.log_level)
    version = seams.sglang_version()
    _complain(seams.unsupported(version), session)
    binder = Binder(session.dispatcher, session.settings, session.platform)
    load_model = seams.at(seams.LOAD_MODEL, version)
    if session.settings.oot_enabled:
        _hook(seams.at(seams.FORWARD_CHOICE, version), _forward_choice(binder, load_model, session), session)
        _hook(seams.at(seams.ENTER_COMPILE, version), _entering_compile(binder, session), session)
    _when_imported(_module(load_model), load_model, lambda: _hook(load_model, _load_model(session, binder), session))
    if session.communicator.contenders:
        coordinator = seams.at(seams.GROUP_COORDINATOR, version)
        _when_imported(coordinator.rpartition(".")[0], coordinator, lambda: _replace(coordinator, session))
    if _needs_no_nccl(session, version):
        make_group = seams.at(seams.MAKE_GROUP, version)
        _when_imported(make_group.rpartition(".")[0], make_group, lambda: _hook(make_group, _without_nccl, session))


def _needs_no_nccl(session: Session, version: Version) -> bool:
    """Does SGLang take the platform for one that NCCL serves, without asking?"""
    can = session.platform.in_tree or "pynccl" in session.platform.capabilities
    return not can and not seams.at(seams.ASKS_FOR_PYNCCL, version)


def _without_nccl(original: Any, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("use_pynccl") is None:
        kwargs["use_pynccl"] = False
    return original(*args, **kwargs)


def _forward_choice(binder: Binder, load_model: str, session: Session) -> Any:
    checked = False

    def choose(original: Forward, layer: Any) -> Forward:
        nonlocal checked
        if not checked and _is_imported(load_model):
            checked = True
            # What is checked after a model has loaded is checked by this very hook, so whether it took is asked here.
            _complain(None if load_model in HookRegistry._patched else seams.unapplied(load_model), session)
        return binder.forward_for(layer, original(layer))

    return choose


def _entering_compile(binder: Binder, session: Session) -> Any:
    told = False

    def enter(original: Forward, layer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal told
        if not told and (binding := binder.binding(layer)) is not None and binding.kept is None:
            told = True
            _complain(_compiled_without_us(), session)
        return original(layer, *args, **kwargs)

    return enter


def _compiled_without_us() -> SeamError:
    return SeamError(
        CORE,
        asked="layers that call what the table of ops says",
        found="SGLang compiles steps of the model with PyTorch code of its own in their place, as it does with its own "
        "kernels (--enable-torch-compile, or tc_piecewise graphs for prefill); what is not compiled calls them",
        do="leave that option out, or leave the layers to SGLang with SGLANG_FL_OOT_ENABLED=0",
    )


def _load_model(session: Session, binder: Binder) -> Any:
    activated = False

    def load(original: Forward, runner: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal activated
        if not activated:  # a draft model's runner loads in the same process
            activated = True
            session.activate()
            _complain(_unreplaced(session), session)
        binder.batch_invariant = _is_deterministic()
        result = original(runner, *args, **kwargs)
        check_and_report(runner.model, session, binder)
        return result

    return load


def _is_deterministic() -> bool:
    """As SGLang has resolved its arguments: others than the one of that name ask for it, too."""
    from sglang.srt.runtime_context import get_exec  # noqa: PLC0415 - in a worker alone it can be asked

    return bool(get_exec().deterministic.enable_deterministic_inference)


def _module(method: str) -> str:
    return method.rsplit(".", 2)[0]


def _is_imported(method: str) -> bool:
    """Is the method's module there, and whole? Layers may be built while it is being imported."""
    module = sys.modules.get(_module(method))
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def _hook(target: str, around: Any, session: Session) -> None:
    if _exists(target, session):
        HookRegistry.register(target, around, HookType.AROUND, source=_SOURCE)


def _replace(target: str, session: Session) -> None:
    if _exists(target, session):
        from sglang_fl.adapter.groups.coordinator import coordinator_class  # noqa: PLC0415 - a subclass of the target

        HookRegistry.register(target, coordinator_class(session), HookType.REPLACE, source=_SOURCE)


def _unreplaced(session: Session) -> SeamError | None:
    """What there is to say when SGLang's groups are not of our class though they should be."""
    target = seams.at(seams.GROUP_COORDINATOR, seams.sglang_version())
    if not session.communicator.contenders or getattr(pkgutil.resolve_name(target), "session", None) is session:
        return None
    return seams.unapplied(target)


def _exists(target: str, session: Session) -> bool:
    owner, _, attribute = target.rpartition(".")
    try:
        getattr(pkgutil.resolve_name(owner), attribute)
    except (ImportError, AttributeError) as error:
        _complain(
            SeamError(
                CORE,
                asked=f"SGLang's {target}, to hook it",
                found=f"SGLang {seams.sglang_version()} has none ({error})",
                do=f"pip install sglang=={seams.PRIMARY}",
            ),
            session,
        )
        return False
    return True


def _when_imported(module: str, target: str, register: Any) -> None:
    """Registers once the target's module is there: importing it now would cost every process of SGLang seconds."""
    if module in sys.modules:
        register()
        return

    def imported(_: Any) -> None:
        # Another plugin's hook on this target means that SGLang is applying hooks right now, ours with them.
        applying = bool(HookRegistry._hooks.get(target))
        register()
        if not applying and target in HookRegistry._hooks:
            # This target alone: SGLang may be in the middle of another plugin's, and would wrap that one twice.
            HookRegistry._apply_target(target, HookRegistry._hooks[target])
            HookRegistry._patched.add(target)

    wrapt.register_post_import_hook(imported, module)


def _complain(error: SeamError | None, session: Session) -> None:
    if error is None:
        return
    if session.settings.strict:
        raise error
    logger.error("%s", error)
