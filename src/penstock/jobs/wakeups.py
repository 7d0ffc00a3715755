"""Who waits for what in this process: workers for ready jobs and cancels, watchers for the events of a job.

An engine learns of changes in its own way (polling, publish/subscribe) and rings here, on the event loop. Nothing
depends on a ring: who waits looks for itself now and then, because a ring can be lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from penstock.types import JobEvent

_INBOX = 256
_CANCELS = 1024


class Doorbell:
    """A worker's bell: `rung` is set when jobs may be ready or `cancels` holds ids of jobs whose cancel was asked."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.cancels: deque[str] = deque(maxlen=_CANCELS)


class Inbox:
    """What was pushed to one watcher since it last looked. Bounded: a slow watcher is told to read the store."""

    def __init__(self) -> None:
        self._events: list[JobEvent] = []
        self._missed = False
        self._waiter: asyncio.Future[None] | None = None
        self._until = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def push(self, event: JobEvent) -> None:
        if len(self._events) >= _INBOX:
            self.miss()
        else:
            self._events.append(event)
            self._wake()

    def miss(self) -> None:
        """Events may have been lost on the way: have the watcher read the store."""
        self._events.clear()
        self._missed = True
        self._wake()

    async def take(self, timeout_s: float) -> list[JobEvent] | None:
        """The events pushed since the last call; None after a time-out or a loss: the store knows more."""
        if not (self._events or self._missed):
            await self._wait(asyncio.get_running_loop(), timeout_s)
        events, self._events = self._events, []
        missed, self._missed = self._missed, False
        return None if missed or not events else events

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _wait(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        """One alarm for many waits, put off when it rings too early: events come far more often than it is needed."""
        self._until = loop.time() + timeout_s
        if self._alarm is None or self._alarm.when() > self._until:
            self.close()
            self._alarm = loop.call_at(self._until, self._ring, loop)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._alarm = None
        if self._waiter is not None and self._until > loop.time():
            self._alarm = loop.call_at(self._until, self._ring, loop)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Wakeups:
    """The bells and inboxes of one store in one process. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.inboxes: dict[str, set[Inbox]] = {}
        self.doorbells: set[Doorbell] = set()
        self.begun: Callable[[], None] = _nothing
        """Called when somebody begins to wait."""

    @contextmanager
    def doorbell(self) -> Iterator[Doorbell]:
        bell = Doorbell()
        self.doorbells.add(bell)
        self.begun()
        try:
            yield bell
        finally:
            self.doorbells.discard(bell)

    @contextmanager
    def inbox(self, job_id: str) -> Iterator[Inbox]:
        box = Inbox()
        self.inboxes.setdefault(job_id, set()).add(box)
        self.begun()
        try:
            yield box
        finally:
            box.close()
            boxes = self.inboxes[job_id]
            boxes.discard(box)
            if not boxes:
                del self.inboxes[job_id]

    def ready(self) -> None:
        """Jobs may be ready to be leased."""
        for bell in self.doorbells:
            bell.rung.set()

    def cancelled(self, job_ids: Iterable[str]) -> None:
        """The cancel of these running jobs was asked for."""
        ids = list(job_ids)
        for bell in self.doorbells:
            bell.cancels.extend(ids)
            bell.rung.set()

    def event(self, job_id: str, event: JobEvent) -> None:
        for box in self.inboxes.get(job_id, ()):
            box.push(event)

    def missed(self) -> None:
        """The engine's own line was cut for a while: everybody should look at the store."""
        self.ready()
        for boxes in self.inboxes.values():
            for box in boxes:
                box.miss()


def _nothing() -> None:
    """Nobody needs to know."""
