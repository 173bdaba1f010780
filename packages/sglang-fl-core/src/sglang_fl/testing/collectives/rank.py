"""One rank: creates the communicator, runs every case, and writes down what came of each as soon as it is known.

``python -m sglang_fl.testing.collectives.rank JOB RANK``, with the job as JSON and the rank within the group.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from sglang_fl.communication.collectives import Group, misdeclared
from sglang_fl.communication.exchange import Exchange
from sglang_fl.records import Platform
from sglang_fl.testing.collectives.cases import CASES, Case, End
from sglang_fl.testing.collectives.difference import difference
from sglang_fl.testing.collectives.job import SECONDS, join, records


def main(job: str, rank: int) -> None:
    """Writes ``RANK.jsonl`` in the job's folder: one line ``[case, answer]`` for each case."""
    told = json.loads(job)
    with Path(told["folder"], f"{rank}.jsonl").open("w", buffering=1) as file:
        for line in _lines(told, rank):
            file.write(json.dumps(line) + "\n")
    dist.destroy_process_group()


def _lines(job: dict[str, Any], rank: int) -> Iterator[tuple[str, str]]:
    platform, record = records(job)
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
        found = [difference(what, got.cpu(), wanted.cpu()) for what, got, wanted in case.checks(end)]
    except Exception:
        return traceback.format_exc()
    return next((one for one in found if one is not None), "ok")


def _ended(made: Any) -> str:
    try:
        made.destroy()
        made.abort()  # may come after it
    except Exception:
        return traceback.format_exc()
    return "ok"


def _group(job: dict[str, Any], platform: Platform, rank: int) -> Group:
    device = torch.device("cpu") if platform.device_type == "cpu" else torch.device(platform.device_type, rank)
    if device.type != "cpu":
        torch.get_device_module(device).set_device(device)
    ranks = tuple(job["ranks"])
    cpu_group, device_group = join(job, platform, ranks[rank])
    exchange = Exchange(cpu_group.get_group_store().clone(), "conformance", rank, len(ranks), 10 * SECONDS)
    return Group("tp:0", rank, ranks, device, SECONDS, cpu_group, device_group, exchange.share)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
