"""The thread that keeps a worker's leases, so that a blocked event loop does not lose them."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

from penstock.errors import PenstockError
from penstock.jobs.base import JobStore
from penstock.jobs.records import Beat

logger = logging.getLogger(__name__)

_FAILED_S = 0.25


class Heartbeat:
    """Renews every `interval_s`; `heard` is called on the event loop with what the store said.

    A loop that has not come round for `stall_s` is taken for dead: its leases are let go, so that others can do the
    work. It learns of that from the first beat after it came back.
    """

    def __init__(
        self,
        store: JobStore,
        worker_id: str,
        leases: Mapping[str, int],
        heard: Callable[[Beat], None],
        *,
        interval_s: float,
        stall_s: float,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._leases = leases
        self._heard = heard
        self._interval_s = interval_s
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._alive_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs-heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._interval_s
        while not self._stop.wait(pause):
            try:
                pause = self._beat()
            except RuntimeError:  # the event loop is closed
                return

    def _beat(self) -> float:
        """One round; returns the pause before the next."""
        stalled_s = time.monotonic() - self._alive_at
        self._loop.call_soon_threadsafe(self._tick)
        leases = dict(self._leases)
        if stalled_s > self._stall_s:
            logger.error("the event loop is blocked since %.0f s; %d leases are let go", stalled_s, len(leases))
        elif leases:
            try:
                beat = self._store.beat(self._worker_id, leases)
            except PenstockError as exc:
                logger.warning("the leases could not be renewed (%s); trying again", exc)
                return min(self._interval_s, _FAILED_S)
            if beat.lost or beat.cancelled:
                self._loop.call_soon_threadsafe(self._heard, beat)
        return self._interval_s

    def _tick(self) -> None:
        self._alive_at = time.monotonic()
