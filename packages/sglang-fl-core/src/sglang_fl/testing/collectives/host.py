"""The world's rank 0: it hosts the store, and has neither a device nor a part in the group.

``python -m sglang_fl.testing.collectives.host JOB``, with the job as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from sglang_fl.testing.collectives.job import join, records


def main(job: str) -> None:
    """Stays until it is ended: the ranks' store ends with it. Where nobody is left to end it, it ends by itself."""
    told = json.loads(job)
    platform, _ = records(told)
    join(told, platform, 0)
    time.sleep(told["seconds"])


if __name__ == "__main__":
    main(sys.argv[1])
