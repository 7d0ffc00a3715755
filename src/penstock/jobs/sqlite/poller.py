"""How a process learns what others wrote: `PRAGMA data_version` from a thread, while anybody here waits for news."""
# ruff: noqa: S608 (statements are put together from our own constants; values are always bound)

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from penstock.jobs.clock import Clock
from penstock.jobs.sqlite.rows import decode, read
from penstock.jobs.wakeups import Wakeups
from penstock.types import JobEvent

logger = logging.getLogger(__name__)

_PAUSES_S = ((0.25, 0.002), (5.0, 0.005), (float("inf"), 0.01))
"""How often the file is looked at, by the time since there was news or somebody began to wait for some: a server that
idles costs 1 % of a core."""

_REST = 4
_LONGEST_REST_S = 0.02
"""It rests four times as long as its last look took: under load there is more to tell at once, which costs less."""

_FAILED_S = 0.5
_BATCH = 2000
_TURN = 32
"""So many events go to their watchers in one turn of the event loop: a thousand streams do not hold up a request."""

_WORK = """SELECT EXISTS (SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'queued' AND due IS NULL),
    (SELECT min(due) FROM job INDEXED BY job_due WHERE state = 'queued' AND due IS NOT NULL),
    (SELECT json_group_array(id) FROM job INDEXED BY job_cancel WHERE state = 'running' AND cancel = 1)"""
_EVENTS = f"""SELECT json_group_array(json_array(n, job, json_object(
    'seq', seq, 'type', type, 'data', json(data), 'attempt', attempt, 'at', at)))
    FROM (SELECT * FROM event WHERE n > ? ORDER BY n LIMIT {_BATCH})"""
_NEWEST = "SELECT coalesce(max(n), 0) FROM event"


class _Pushed(msgspec.Struct, frozen=True, array_like=True):
    n: int
    job: str
    event: JobEvent


class Poller:
    """Rings on the event loop that opened the store. Sleeps without a time-out while nobody waits."""

    def __init__(self, cx: sqlite3.Connection, wakeups: Wakeups, clock: Clock) -> None:
        self._cx = cx
        self._wakeups = wakeups
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._kick = threading.Event()
        self._closing = False
        self._eager_at = time.monotonic()
        self._version = -1
        self._next_due: float | None = None
        self._last: int | None = None  # the newest event told; None: not following events
        self._untold: deque[_Pushed] = deque()
        self._read = 0  # events, ever
        self._told = 0
        self._behind = False
        self._thread = threading.Thread(target=self._run, name="jobs-poller", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """Look now: this process has written."""
        self._kick.set()

    def attend(self) -> None:
        """Look now and often: somebody here has begun to wait."""
        self._eager_at = time.monotonic()
        self._kick.set()

    def close(self) -> None:
        self._closing = True
        self._kick.set()
        self._thread.join()
        self._cx.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                began = time.monotonic()
                self._look()
                now = time.monotonic()
                pause = next(pause for since_s, pause in _PAUSES_S if now - self._eager_at < since_s)
                pause = max(pause, min(_REST * (now - began), _LONGEST_REST_S))
            except sqlite3.Error:
                logger.warning("the jobs file could not be looked at; trying again", exc_info=True)
                pause = _FAILED_S
            except RuntimeError:  # the event loop is closed: nobody is left to be told
                return
            waited_for = self._wakeups.doorbells or self._wakeups.inboxes
            self._kick.wait(pause if waited_for else None)
            self._kick.clear()

    def _look(self) -> None:
        """Tell what is new."""
        version = self._cx.execute("PRAGMA data_version").fetchone()[0]
        changed = version != self._version
        self._version = version
        if self._wakeups.inboxes:
            if changed or self._behind or self._last is None:
                self._follow()
        else:
            self._last = None
        if self._wakeups.doorbells:
            self._ring(changed)

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        """On the event loop. More is likely to come soon."""
        self._eager_at = time.monotonic()
        self._loop.call_soon_threadsafe(what, *arguments)

    def _follow(self) -> None:
        """Push the new events. Who begins to follow is first sent to the store: it may have missed some."""
        if self._last is None:
            self._last = self._cx.execute(_NEWEST).fetchone()[0]
            self._tell(self._wakeups.missed)
            return
        while not (behind := self._read - self._told >= _BATCH):
            pushed = read(self._cx, _EVENTS, (self._last,), list[_Pushed])
            if pushed:
                self._last = pushed[-1].n
                self._read += len(pushed)
                self._tell(self._push, pushed)
            if len(pushed) < _BATCH:
                break
        self._behind = behind

    def _push(self, pushed: Sequence[_Pushed]) -> None:
        idle = not self._untold
        self._untold.extend(pushed)
        if idle:
            self._push_some()

    def _push_some(self) -> None:
        for _ in range(min(_TURN, len(self._untold))):
            each = self._untold.popleft()
            self._wakeups.event(each.job, each.event)
            self._told += 1
        if self._untold:
            self._loop.call_soon(self._push_some)

    def _ring(self, changed: bool) -> None:
        if changed:
            ready, self._next_due, listed = self._cx.execute(_WORK).fetchone()
            if cancelled := decode(listed, list[str]):
                self._tell(self._wakeups.cancelled, cancelled)
            if ready:
                self._tell(self._wakeups.ready)
        if self._next_due is not None and self._next_due <= self._clock.wall():
            self._next_due = None
            self._tell(self._wakeups.ready)
