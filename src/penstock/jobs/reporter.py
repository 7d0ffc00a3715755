"""What the handlers of a worker report, gathered and written in few calls: events, progress, and how attempts ended."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from penstock.errors import PenstockError, StorageFull
from penstock.jobs.base import JobStore
from penstock.jobs.context import Attempt
from penstock.jobs.drafts import encode
from penstock.jobs.records import NewEvent, Outcome, Report
from penstock.types import Progress

logger = logging.getLogger(__name__)

_MAX_EVENTS = 512  # of one attempt, unwritten; then `emit` waits
_BYTES_A_CHAR = 6  # at most, as JSON
_FRAME_CHARS = 4  # of `{"text":""}`, at so many bytes each
_REST = 4  # times what the last writing took
_LONGEST_REST = 2  # times `flush_s`
_PROGRESS_S = 0.25
_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Reporter:
    """Writes at once when nothing was written for `flush_s`, else when that has passed; an end never waits for it.

    Where the store is slow to take it, it rests longer, up to twice `flush_s`: what is written together costs less.
    While the store is away everything is kept and tried again.
    """

    def __init__(
        self,
        store: JobStore,
        flush_s: float,
        lost: Callable[[Attempt], None],
        closed: Callable[[Iterable[Attempt]], None],
    ) -> None:
        self._store = store
        self._flush_s = flush_s
        self._lost = lost
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._dirty: dict[Attempt, None] = {}
        self._ends: list[tuple[Attempt, Outcome]] = []
        self._something = asyncio.Event()
        self._end = asyncio.Event()
        self._written = asyncio.Condition()

    def progress(self, attempt: Attempt, progress: Progress) -> None:
        attempt.progress = progress
        self._dirty[attempt] = None
        if not self._soon(attempt, progress):
            self._something.set()

    async def emit(self, attempt: Attempt, event: NewEvent) -> None:
        encode(event.data, "the event", self._store.options.max_event_bytes)
        attempt.seal()
        attempt.events.append(event)
        await self._wait_for_room(attempt)

    async def say(self, attempt: Attempt, text: str) -> None:
        limit = self._store.options.max_event_bytes
        encode({"text": text}, "the event", limit)
        if sum(map(len, attempt.said)) + len(text) > limit // _BYTES_A_CHAR - _FRAME_CHARS:
            attempt.seal()
        attempt.said.append(text)
        await self._wait_for_room(attempt)

    async def _wait_for_room(self, attempt: Attempt) -> None:
        self._dirty[attempt] = None
        self._something.set()
        while len(attempt.events) >= _MAX_EVENTS and attempt.reason is None:
            async with self._written:
                await self._written.wait()

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write how the attempt ended, after all it reported before."""
        self._ends.append((attempt, outcome))
        self._end.set()
        self._something.set()

    async def run(self) -> None:
        """Until cancelled."""
        last = took = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_S if self._dirty else None):
                    await self._something.wait()
            pause = max(self._flush_s, min(_REST * took, _LONGEST_REST * self._flush_s))
            if not self._ends and (rest := last + pause - self._loop.time()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._end.wait()
            self._something.clear()
            self._end.clear()
            last = self._loop.time()
            await self._flush()
            took = self._loop.time() - last

    async def _flush(self) -> None:
        dirty, self._dirty = self._dirty, {}
        ends, self._ends = self._ends, []
        ending = {attempt for attempt, _ in ends}
        reports = {a: report for a in dirty if (report := self._report(a, a in ending)) is not None}
        if reports:
            lost = await self._persist("report", lambda: self._store.report(list(reports.values())))
            for attempt in reports:
                if attempt.job.id in lost:
                    self._lost(attempt)
            async with self._written:
                self._written.notify_all()
        if ends:
            outcomes = [(attempt.job.id, attempt.job.attempt, outcome) for attempt, outcome in ends]
            await self._persist("finish", lambda: self._store.finish(outcomes))
            self._closed(ending)

    def _report(self, attempt: Attempt, ending: bool) -> Report | None:
        """What the attempt has to say now; progress may have to wait for its quarter of a second."""
        now = self._loop.time()
        progress = attempt.progress
        if progress is not None and not ending and self._soon(attempt, progress):
            self._dirty[attempt] = None
            progress = None
        if progress is not None:
            attempt.progress, attempt.progress_at, attempt.stage = None, now, progress.stage
        attempt.seal()
        events, attempt.events = attempt.events, []
        if not events and progress is None:
            return None
        return Report(job_id=attempt.job.id, attempt=attempt.job.attempt, events=events, progress=progress)

    def _soon(self, attempt: Attempt, progress: Progress) -> bool:
        """Whether so little time has passed that the next progress may replace this one.

        A new stage is told at once where somebody watches; of a short job of the background only the last one is.
        """
        if progress.stage != attempt.stage and not attempt.background:
            return False
        return self._loop.time() - (attempt.progress_at or attempt.begun) < _PROGRESS_S

    async def _persist(self, what: str, call: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
        """Try until the store takes it. Only events are given up, where it is full: an end makes room."""
        tries = 0
        while True:
            try:
                return await call()
            except StorageFull as exc:
                logger.warning("the job store has no room for a %s (%s)", what, exc)
                if what == "report":
                    return frozenset()
            except PenstockError as exc:
                logger.warning("the job store did not take a %s (%s); trying again", what, exc)
            await asyncio.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1
