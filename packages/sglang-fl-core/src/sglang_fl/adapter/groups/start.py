"""Gives one of SGLang's groups the communicator that its ranks agree on."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import torch

from sglang_fl.adapter.groups.small_sums import kept_small_sums
from sglang_fl.communication.agreement import agree
from sglang_fl.communication.collectives import CommunicatorError, Group
from sglang_fl.communication.exchange import Departure
from sglang_fl.communication.served import ServedGroup
from sglang_fl.layers import OWN
from sglang_fl.records import Platform
from sglang_fl.session import Session

logger = logging.getLogger(__name__)


def start_communicator(coordinator: Any, session: Session) -> ServedGroup | None:
    """The group's collectives by a communicator, or None where SGLang's own serve. Raises CommunicatorError."""
    if coordinator.world_size == 1:
        return None
    asked, argument = session.communicator.asked, _asked_of_sglang(coordinator)
    left = _left_to_sglang(coordinator, None if asked else argument)
    if left is not None:
        _report(coordinator, session, OWN, left)
        return None
    group, store = _group(coordinator, session), coordinator.cpu_group.get_group_store().clone()
    agreed = agree(group, session.communicator, store)
    told = [f"{name}: {why}" for name, why in agreed.passed_over]
    if agreed.collectives is None:
        _report(coordinator, session, agreed.name, "; ".join(told))
        return None
    try:
        kept = None if agreed.name == asked else kept_small_sums(coordinator, group, agreed.name, store)
    except CommunicatorError:
        agreed.collectives.abort()
        raise
    if kept is not None:
        told.append("small sums stay with SGLang's own kernels")
    if argument is not None:
        told.append(f"{argument} is in vain for what it serves, since SGLANG_FL_DIST_BACKEND is set: unset either")
    _report(coordinator, session, agreed.name, "; ".join(told))
    departure = Departure(store, group.rank, group.size)
    return ServedGroup(group, agreed.name, agreed.collectives, departure, elsewhere=kept, tracer=session.tracer)


def _left_to_sglang(coordinator: Any, argument: str | None) -> str | None:
    if coordinator.unique_name.startswith("world:"):
        return "it sends no tensors through this group, and starts no communicator of its own for it"
    if torch.distributed.get_backend(coordinator.device_group) == "mooncake":
        return "the group's ranks can be replaced while it serves, which a communicator does not survive"
    if argument is not None:
        return f"{argument} asks for SGLang's own; SGLANG_FL_DIST_BACKEND=NAME has a communicator serve in its place"
    return None


def _asked_of_sglang(coordinator: Any) -> str | None:
    """The argument by which the user has asked SGLang for another way to run this group's collectives, if any."""
    if coordinator.pymscclpp_comm is not None:
        return "--enable-mscclpp"
    if coordinator.torch_symm_mem_comm is not None:
        return "--enable-torch-symm-mem"
    if coordinator.pynccl_comm is not None and coordinator.is_symmetric_memory_enabled():
        return "--enable-symm-mem"
    return None


def _group(coordinator: Any, session: Session) -> Group:
    return Group(
        name=coordinator.unique_name,
        rank=coordinator.rank_in_group,
        ranks=tuple(coordinator.ranks),
        device=_device(coordinator, session.platform),
        timeout=session.settings.communicator_timeout,
        cpu_group=coordinator.cpu_group,
        device_group=coordinator.device_group,
        share=_too_early,
    )


def _device(coordinator: Any, platform: Platform) -> torch.device:
    """Where the group's tensors are. Until 0.5.22 SGLang takes a device that it does not know for the CPU."""
    if platform.in_tree:
        return torch.device(coordinator.device)
    index = None if platform.device_type == "cpu" else coordinator.local_rank
    return torch.device(platform.device_type, index)


def _too_early(value: bytes) -> NoReturn:
    raise CommunicatorError(
        "sglang-fl-core",
        asked="to share something with the group's other ranks",
        found="that no create is under way",
        do="share in create, and keep what it gives",
    )


def _report(coordinator: Any, session: Session, name: str, reason: str) -> None:
    ranks, rule = list(coordinator.ranks), session.communicator.rule
    told = f"{rule}; {reason}" if reason else rule
    logger.info("collectives of %s (ranks %s) by %s: %s", coordinator.unique_name, str(ranks)[1:-1], name, told)
    if session.tracer is not None:
        session.tracer.communicator(
            group=coordinator.unique_name, ranks=ranks, communicator=name, rule=rule, reason=reason
        )
