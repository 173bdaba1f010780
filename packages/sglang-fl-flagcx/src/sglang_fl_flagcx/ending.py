"""How a communicator ends without hanging the process that ends it.

``flagcxCommDestroy`` waits for the other ranks of the host to destroy theirs, for work that is still under way, and
for every device graph that holds a collective of its. So it is called in a thread of its own, and only so long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from sglang_fl_flagcx.library import Library
from sglang_fl_flagcx.streams import Streams

logger = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds to wait for a communicator's own work, and again for its destruction. What is left ends with the process."""

_POLL = 0.001
_DESTROY, _ABORT = "flagcxCommDestroy", "flagcxCommAbort"


class Ending:
    """The end of one communicator: it is destroyed or aborted, once, whichever is ordered first.

    Args:
        library, comm: the communicator.
        streams: its stream handles, freed after it.
        device_index: its device's.
        patience: see :data:`PATIENCE`.
    """

    def __init__(
        self, library: Library, comm: int, streams: Streams, device_index: int, patience: float = PATIENCE
    ) -> None:
        self._library, self._comm, self._streams = library, comm, streams
        self._device_index, self._patience = device_index, patience
        self._order: SimpleQueue[str] = SimpleQueue()
        self._done = threading.Event()
        # Started now, since Python 3.12 starts no thread at exit; a daemon, since nothing may wait for it there.
        threading.Thread(target=self._carry_out, name=f"flagcx-end-{comm:x}", daemon=True).start()

    def destroy(self) -> None:
        """Destroys it once its own work is done; aborts it when that work waits for a rank that does not come."""
        idle = _within(self._patience, self._streams.are_idle)
        self._order.put(_DESTROY if idle else _ABORT)
        if not self._done.wait(self._patience):
            logger.warning(
                "FlagCX's communicator is left to the end of the process: after %g s, a device graph or another "
                "rank still holds it",
                self._patience,
            )

    def abort(self) -> None:
        """Orders its end at once, whatever is under way, and does not wait for it."""
        self._order.put(_ABORT)

    def _carry_out(self) -> None:
        function = self._order.get()
        try:
            self._streams.set_device(self._device_index)  # a new thread is on device 0
            self._library.call(function, self._comm)
            if function == _DESTROY:  # a call that was aborted may still hold a stream's handle
                self._streams.free()
        except Exception:
            logger.exception("FlagCX's communicator did not end well")
        finally:
            self._done.set()


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Does ``holds`` come to hold in time?"""
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(_POLL)
    return True
