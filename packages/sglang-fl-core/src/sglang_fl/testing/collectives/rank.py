"""One rank: creates the communicator, runs every case, and writes down what came of each as soon as it is known.

``python -m sglang_fl.testing.collectives.rank JOB RANK``, with the job as JSON.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sglang_fl.communication.collectives import Group, misdeclared
from sglang_fl.communication.exchange import Exchange
from sglang_fl.plugins import Plugins
from sglang_fl.records import Communicator, Platform
from sglang_fl.testing.collectives.cases import CASES, Case, End
from sglang_fl.testing.configuration import settings_for

_SECONDS = 60.0


def main(job: str, rank: int) -> None:
    """Writes ``RANK.jsonl`` in the job's folder: one line ``[case, answer]`` for each case."""
    told = json.loads(job)
    with Path(told["folder"], f"{rank}.jsonl").open("w", buffering=1) as file:
        for line in _lines(told, rank):
            file.write(json.dumps(line) + "\n")
    dist.destroy_process_group()


def _lines(job: dict[str, Any], rank: int) -> Iterator[tuple[str, str]]:
    platform, record = _records(job)
    group = _group(job, platform, rank)
    try:
        made = record.load()(group)
        wrong = misdeclared(made)
    except Exception:
        yield "create", traceback.format_exc()
        return
    yield "create", wrong or "ok"
    if wrong is not None:
        return
    for name, case in CASES.items():
        yield name, _run(case, End(made, group))
    yield "destroy", _ended(made)


def _run(case: Case, end: End) -> str:
    missing = [name for name in case.needs if name not in end.made.dtypes]
    if missing:
        return f"not offered: {', '.join(missing)}"
    try:
        # To the end, whatever is found: the other ranks wait for this one.
        found = [_difference(what, got.cpu(), wanted.cpu()) for what, got, wanted in case.checks(end)]
    except Exception:
        return traceback.format_exc()
    return next((one for one in found if one is not None), "ok")


def _difference(what: str, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if torch.equal(got, wanted):
        return None
    off = (got != wanted).nonzero().flatten()
    where = int(off[0])
    return f"{what}: element {where} is {got[where]}, not {wanted[where]}; {len(off)} of {len(got)} differ"


def _ended(made: Any) -> str:
    try:
        made.destroy()
        made.abort()  # may come after it
    except Exception:
        return traceback.format_exc()
    return "ok"


def _records(job: dict[str, Any]) -> tuple[Platform, Communicator]:
    plugins = Plugins.load()
    platforms = plugins.collect("sglang_fl_register_platforms", Platform)
    platform = next(offer.record for offer in platforms if offer.record.name == job["platform"])
    settings = settings_for(plugins, platform)
    hook = "sglang_fl_register_communicators"
    offers = plugins.collect(hook, Communicator, platform=platform, settings=settings)
    own = (offer.record for offer in offers if offer.plugin.name == job["plugin"])
    return platform, next(record for record in own if record.name == job["communicator"])


def _group(job: dict[str, Any], platform: Platform, rank: int) -> Group:
    device = torch.device("cpu") if platform.device_type == "cpu" else torch.device(platform.device_type, rank)
    if device.type != "cpu":
        torch.get_device_module(device).set_device(device)
    address, size = f"tcp://127.0.0.1:{job['port']}", job["size"]
    wait = timedelta(seconds=_SECONDS)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size, timeout=wait)
    ranks = tuple(range(size))
    own = dist.get_default_backend_for_device(device) if platform.in_tree else platform.distributed_backend
    cpu_group, device_group = dist.new_group(ranks, backend="gloo"), dist.new_group(ranks, backend=own)
    exchange = Exchange(cpu_group.get_group_store().clone(), "conformance", rank, size, 10 * _SECONDS)
    return Group("tp:0", rank, ranks, device, _SECONDS, cpu_group, device_group, exchange.share)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
