"""What every process of a job does first: it finds the records, and joins the world."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from sglang_fl.plugins import Plugins
from sglang_fl.records import Communicator, Platform
from sglang_fl.testing.configuration import settings_for

SECONDS = 60.0
"""How long a process waits for the others."""


def records(job: Mapping[str, Any]) -> tuple[Platform, Communicator]:
    """The platform and the communicator that are tested."""
    plugins = Plugins.load()
    platforms = plugins.collect("sglang_fl_register_platforms", Platform)
    platform = next(offer.record for offer in platforms if offer.record.name == job["platform"])
    settings = settings_for(plugins, platform)
    hook = "sglang_fl_register_communicators"
    offers = plugins.collect(hook, Communicator, platform=platform, settings=settings)
    own = (offer.record for offer in offers if offer.plugin.name == job["plugin"])
    return platform, next(record for record in own if record.name == job["communicator"])


def join(job: Mapping[str, Any], platform: Platform, rank: int) -> tuple[Any, Any]:
    """Joins as ``rank`` of the world. The group on gloo, and on the platform's own backend, where ``rank`` is in it."""
    address, world, ranks = f"tcp://127.0.0.1:{job['port']}", job["ranks"][-1] + 1, job["ranks"]
    wait = timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world, timeout=wait)
    device = platform.device_type
    own = dist.get_default_backend_for_device(device) if platform.in_tree else platform.distributed_backend
    return dist.new_group(ranks, backend="gloo"), dist.new_group(ranks, backend=own)
