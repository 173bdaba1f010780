"""What the plugin adds to a process's start: its import beyond torch, and its entry points beyond SGLang's own imports.

The bound is on the bare import, which loads names when they are first used: a backend's hooks need only a few. What all
of them take is printed beside it.

Every figure is the median over fresh processes, in seconds of the processor: all of it is importing and computing,
and the clock on the wall would count whatever else the machine does.

    python -m benchmarks.startup [--json FILE]
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.figures import Figures, parser
from benchmarks.inherited import inherited

PROCESSES = 5
IMPORT_S, ENTRY_POINTS_S = 0.1, 0.3

IMPORT = """
import time, torch
start = time.process_time()
import sglang_fl
print(time.process_time() - start)
"""

PUBLIC_NAMES = """
import time, torch
start = time.process_time()
import sglang_fl
for name in sglang_fl.__all__:
    getattr(sglang_fl, name)
print(time.process_time() - start)
"""

# SGLANG_PLUGINS keeps SGLang from calling the entry points itself, so that they can be timed after its imports.
ENTRY_POINTS = """
import time
import sglang, sglang.launch_server
from sglang.srt.plugins.hook_registry import HookRegistry
start = time.process_time()
from sglang_fl.adapter.entry import activate_platform, load_plugin
activate_platform()
load_plugin()
HookRegistry.apply_hooks()
print(time.process_time() - start)
"""


def main() -> None:
    """Starts the processes and prints the figures."""
    args = parser(__doc__).parse_args()
    figures = Figures(args.json)
    figures.add("startup.import_sglang_fl", seconds(IMPORT), "s", at_most=IMPORT_S)
    figures.add("startup.import_public_names", seconds(PUBLIC_NAMES), "s")
    figures.add("startup.entry_points", seconds(ENTRY_POINTS), "s", at_most=ENTRY_POINTS_S)
    figures.finish()


def seconds(program: str) -> float:
    """The median of what ``program`` prints last, over fresh processes and after one that fills the disk cache."""
    return statistics.median([_run(program) for _ in range(PROCESSES + 1)][1:])


def _run(program: str) -> float:
    # With bytecode caches, as Python has them unless it is told otherwise.
    environ = inherited() | {"SGLANG_PLUGINS": "none", "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, env=environ, check=False, text=True)
    if done.returncode:
        sys.exit(f"a process ended with {done.returncode}:\n{done.stderr}")
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
