"""Groups of the ranks that ``tests.ranks`` runs, as core hands them to communicators."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from sglang_fl.communication.agreement import Agreed, agree
from sglang_fl.communication.collectives import Collectives, Group
from sglang_fl.communication.exchange import Departure
from sglang_fl.communication.selection import CommunicatorSelection, select_communicator
from sglang_fl.communication.served import ServedGroup
from sglang_fl.plugins import Offer, Plugin
from sglang_fl.records import Communicator, Platform
from sglang_fl.settings import load_settings

CPU = Platform(name="cpu", device_type="cpu", is_available=lambda: True, total_memory=lambda index: 0)


def group_of_all(timeout: float = 10) -> Group:
    """All ranks of the job as the group ``tp:0``, on gloo and on the CPU."""
    ranks = tuple(range(dist.get_world_size()))
    device_group, cpu_group = (dist.new_group(ranks, backend="gloo") for _ in range(2))
    return Group("tp:0", dist.get_rank(), ranks, torch.device("cpu"), timeout, cpu_group, device_group, _no_share)


def serve(group: Group, name: str, collectives: Collectives, tracer: Any = None) -> ServedGroup:
    """The group's collectives by ``collectives``."""
    departure = Departure(group.cpu_group.get_group_store().clone(), group.rank, group.size)
    return ServedGroup(group, name, collectives, departure, tracer=tracer)


def agree_on(group: Group, *records: Communicator, **variables: str) -> Agreed:
    """What the ranks settle on where a plugin offers ``records``, with ``SGLANG_FL_*`` set."""
    return agree(group, selection(*records, **variables), group.cpu_group.get_group_store().clone())


def selection(*records: Communicator, **variables: str) -> CommunicatorSelection:
    """The ranking of ``records`` on a CPU."""
    offers = [Offer(record, Plugin("acme", "acme-chip", "1")) for record in records]
    return select_communicator(offers, CPU, load_settings({f"SGLANG_FL_{k}": v for k, v in variables.items()}))


def _no_share(value: bytes) -> tuple[bytes, ...]:
    msg = "a group shares only in create"
    raise RuntimeError(msg)
