"""The contract of a job store: what every engine promises.

The promise: when `enqueue` returns, the job is durable (as far as the engine is: see `durable`). Every accepted job
reaches exactly one final state whatever process is killed at whatever moment. It may run more than once; only the
newest attempt's writes count.

    queued ──lease──▶ running ──finish──▶ succeeded | failed | cancelled
       ▲                 │
       └──retry, lost lease, hand-back

Order: class by class (interactive, normal, bulk), within a class by start-time fair queueing between tenants: a job is
ranked when it is enqueued, and the ranks of a tenant's jobs lie 1/weight apart. A lower class that waited for
`aged_after_s` gets one lease of `aged_every`.

Atomicity: each verb's effect is there wholly or not at all, and every write of an attempt is fenced by its number.
Each engine reads one clock for all its processes, so no process's own clock decides when a lease ends.

The public verbs live here and do what is the same for all engines; an engine implements the underscored hooks.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from penstock.errors import Conflict, InvalidInput, LeaseLost, NotFound, Overloaded
from penstock.jobs.drafts import Draft, Ending, Entry, draft, ending, entry
from penstock.jobs.metrics import ENQUEUED, REFUSED
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import (
    Beat,
    Enqueued,
    JobFilter,
    NewEvent,
    Outcome,
    Page,
    QueueStats,
    Report,
)
from penstock.jobs.wakeups import Doorbell, Wakeups
from penstock.types import FINAL_JOB_STATES, Job, JobEvent, JobState, NewJob, Progress, WorkerInfo

__all__ = [
    "Beat",
    "Enqueued",
    "JobFilter",
    "JobStore",
    "NewEvent",
    "Outcome",
    "Page",
    "QueueStats",
    "Report",
]

_ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING})
_RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})
_MAX_PAGE = 1000
_LOOK_AGAIN_S = 5.0  # a watcher reads the store so often even if no event was pushed to it


class JobStore(ABC):
    """An async context manager; open it on the event loop that uses it. Only `beat` may be called from a thread.

    Every verb raises Unavailable while the engine cannot be reached, StorageFull when its disk is full.
    """

    durable = False
    """Whether an accepted job survives the death of every process (and, with SQLite, of the machine)."""

    def __init__(self, options: JobsOptions | None = None, *, rng: random.Random | None = None) -> None:
        self.options = options or JobsOptions()
        self.wakeups = Wakeups()
        self._rng = rng or random.Random()  # noqa: S311 (spreads retries, hides nothing)

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    def warnings(self) -> Sequence[str]:
        """What about the engine's set-up endangers the promise, in words for its operator."""
        return ()

    # --- for who has work --------------------------------------------------------------------------------------

    async def enqueue(self, jobs: Sequence[NewJob]) -> Sequence[Enqueued]:
        """Accept all the jobs or none, in this order.

        A job whose idempotency key (within its tenant) or id is known already is not enqueued again: the earlier
        job is returned. Raises Conflict if that one has another payload, Overloaded (with `retry_after_s`) over a
        limit, InvalidInput and TooLarge.
        """
        drafts = [draft(job, self.options) for job in jobs]
        if not drafts:
            return ()
        try:
            accepted = await self._enqueue(drafts)
        except Overloaded:
            REFUSED.labels(drafts[0].priority).inc(len(drafts))
            raise
        for each in accepted:
            if each.created:
                ENQUEUED.labels(each.job.kind, each.job.priority).inc()
        return accepted

    async def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """The job as it is now. Raises NotFound, also where it belongs to another tenant."""
        job = await self._get(job_id)
        if job is None or (tenant is not None and job.tenant != tenant):
            raise NotFound(f"there is no job {job_id!r}; finished jobs are forgotten after a while")
        return job

    async def list(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        """A page of at most 1,000 jobs, newest first. A job that is enqueued meanwhile does not shift later pages."""
        limit = max(1, min(limit, _MAX_PAGE))
        if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
            raise InvalidInput("the cursor is not one that an earlier page gave")
        found = await self._list(where, int(cursor) if cursor else None, limit + 1)
        more = len(found) > limit
        return Page(jobs=[job for _, job in found[:limit]], cursor=str(found[limit - 1][0]) if more else None)

    async def cancel(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Ask for a cancel. A queued job is cancelled at once; of a running one the handler is cancelled within a
        second, and whatever it still returns is not recorded. A job in a final state is returned as it is."""
        if not (job := await self.get(job_id, tenant=tenant)).state.final:
            await self._cancel([job_id])
            job = await self.get(job_id, tenant=tenant)
        return job

    async def cancel_all(self, where: JobFilter) -> int:
        """Cancel every queued and running job that matches; returns how many. Not atomic as a whole."""
        total = 0
        async for jobs in self._pages(where, _ACTIVE):
            total += await self._cancel([job.id for job in jobs])
        return total

    async def cancel_many(self, job_ids: Sequence[str]) -> int:
        """Cancel those of these jobs that are queued or running; returns how many. Unknown ids are ignored."""
        return await self._cancel(job_ids) if job_ids else 0

    async def retry(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Queue a failed or cancelled job again, with all its attempts renewed and without its deadline.

        Earlier failures are kept. Raises Conflict in any other state.
        """
        job = await self.get(job_id, tenant=tenant)
        if job.state not in _RETRYABLE or not await self._retry([job_id]):
            raise Conflict(f"job {job_id} is {job.state}; only a failed or cancelled job can be retried")
        return await self.get(job_id, tenant=tenant)

    async def retry_all(self, where: JobFilter) -> int:
        """Retry every failed and cancelled job that matches; returns how many. Not atomic as a whole."""
        total = 0
        async for jobs in self._pages(where, _RETRYABLE):
            total += await self._retry([job.id for job in jobs])
        return total

    async def watch(self, job_id: str, *, after: int = 0) -> AsyncIterator[JobEvent]:
        """The events with a `seq` above `after`, as they come; ends after the event of the final state.

        Numbers may be missing where the log was trimmed. Raises NotFound at the start.
        """
        with self.wakeups.inbox(job_id) as inbox:
            job: Job | None = await self.get(job_id)  # before the events: a final job's log is whole
            while True:
                ended = job is None or job.state.final
                while batch := await self.events(job_id, after=after):
                    for event in batch:
                        yield event
                    after = batch[-1].seq
                    ended |= _is_final(batch[-1])  # it ended between the two look-ups; no push tells it again
                if ended:
                    return
                while (pushed := await inbox.take(_LOOK_AGAIN_S)) is not None:
                    fresh = [event for event in pushed if event.seq > after]
                    if fresh and fresh[0].seq != after + 1:
                        break
                    for event in fresh:
                        yield event
                        after = event.seq
                    if fresh and _is_final(fresh[-1]):
                        return
                job = await self._get(job_id)

    async def wait(self, job_id: str, *, timeout_s: float) -> Job:
        """The job once it is final, or as it is at the time-out. Raises NotFound."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        with self.wakeups.inbox(job_id) as inbox:
            while True:
                job = await self.get(job_id)
                if job.state.final or loop.time() >= until:
                    return job
                while loop.time() < until:
                    pushed = await inbox.take(min(_LOOK_AGAIN_S, until - loop.time()))
                    if pushed is None or any(_is_final(event) for event in pushed):
                        break

    # --- for workers -------------------------------------------------------------------------------------------

    def doorbell(self) -> AbstractContextManager[Doorbell]:
        """A bell that rings when jobs may be ready or a running job's cancel was asked for. A ring may be lost."""
        return self.wakeups.doorbell()

    async def lease(
        self, worker_id: str, *, kinds: Collection[str], n: int, background: int | None = None
    ) -> Sequence[Job]:
        """Take up to `n` ready jobs of these kinds, at most `background` of them not interactive; may be empty.

        The attempt is counted before this returns. The lease ends `lease_s` after the last `beat`. A job that was
        lost by all its attempts but the last is leased only to a worker that runs no other such job, so that one job
        that kills its workers does not take the innocent with it.
        """
        if n <= 0 or not kinds:
            return ()
        return await self._lease(worker_id, sorted(kinds), n, n if background is None else max(0, background))

    async def append(
        self, job_id: str, attempt: int, events: Sequence[NewEvent], progress: Progress | None = None
    ) -> None:
        """Add events to a running job's log. Raises LeaseLost when another attempt has it, InvalidInput, TooLarge."""
        if await self.report([Report(job_id=job_id, attempt=attempt, events=events, progress=progress)]):
            raise LeaseLost(f"job {job_id} is not run by attempt {attempt} any more")

    async def report(self, reports: Sequence[Report]) -> frozenset[str]:
        """`append` for many jobs at once; returns the ids of those whose lease is lost (nothing of them is written)."""
        return await self._append([entry(report, self.options) for report in reports]) if reports else frozenset()

    async def finish(self, outcomes: Sequence[tuple[str, int, Outcome]]) -> frozenset[str]:
        """End these attempts; returns the ids of those whose lease is lost (nothing of them is written).

        A failure with `retry` puts the job back after a pause (exponential back-off with full jitter) while attempts
        are left. Whatever the outcome, a job whose cancel was asked for ends cancelled.
        """
        endings = [
            ending(job_id, attempt, outcome, self.options, self._pause_s(attempt))
            for job_id, attempt, outcome in outcomes
        ]
        return await self._finish(endings) if endings else frozenset()

    async def hand_back(self, worker_id: str, *, died: bool = False) -> int:
        """Put the worker's running jobs back in the queue at once; returns how many.

        The attempts do not count, unless the worker died: then it is as if the leases had run out now.
        """
        return await self._hand_back(worker_id, died)

    def _pause_s(self, attempt: int) -> float:
        """Full jitter: anywhere between nothing and the exponential bound (AWS, "Exponential Backoff and Jitter")."""
        bound = self.options.backoff_base_s * 2.0 ** min(attempt - 1, 30)
        return self._rng.uniform(0.0, min(self.options.backoff_cap_s, bound))

    async def _pages(self, where: JobFilter, states: frozenset[JobState]) -> AsyncIterator[Sequence[Job]]:
        """Every job that matches and is in one of the states, page by page."""
        states = where.states & states if where.states else states
        cursor: str | None = None
        while states:
            page = await self.list(replace(where, states=states), cursor=cursor, limit=500)
            if page.jobs:
                yield page.jobs
            if (cursor := page.cursor) is None:
                return

    # --- an engine's own -----------------------------------------------------------------------------------------

    @abstractmethod
    async def ping(self) -> None:
        """Return if the engine answers."""

    @abstractmethod
    async def count(self, where: JobFilter) -> int:
        """How many jobs match."""

    @abstractmethod
    async def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
        """The stored events with a `seq` above `after`, in order; empty too when there is no such job."""

    @abstractmethod
    async def stats(self) -> Sequence[QueueStats]:
        """The health of each class, interactive first."""

    @abstractmethod
    def beat(self, worker_id: str, leases: Mapping[str, int]) -> Beat:
        """Renew the leases `{job id: attempt}`. Blocks; to be called from a thread of its own."""

    @abstractmethod
    async def expire(self) -> int:
        """Take back lost leases, fail what is past its deadline, forget what is past its time; returns how many.

        A job whose lease was lost by its last attempt fails as `worker_died`. Any worker may call this at any time.
        """

    @abstractmethod
    async def register(self, worker: WorkerInfo) -> None:
        """Enter or renew a worker in the registry; `seen_at` is set by the store."""

    @abstractmethod
    async def unregister(self, worker_id: str) -> None:
        """Take a worker out of the registry."""

    @abstractmethod
    async def workers(self) -> Sequence[WorkerInfo]:
        """The workers that registered within the last few seconds."""

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    async def _enqueue(self, drafts: Sequence[Draft]) -> Sequence[Enqueued]: ...

    @abstractmethod
    async def _get(self, job_id: str) -> Job | None: ...

    @abstractmethod
    async def _list(self, where: JobFilter, before: int | None, limit: int) -> Sequence[tuple[int, Job]]:
        """Jobs with their number of arrival (below `before`), newest first."""

    @abstractmethod
    async def _cancel(self, job_ids: Sequence[str]) -> int: ...

    @abstractmethod
    async def _retry(self, job_ids: Sequence[str]) -> int: ...

    @abstractmethod
    async def _lease(self, worker_id: str, kinds: Sequence[str], n: int, background: int) -> Sequence[Job]: ...

    @abstractmethod
    async def _append(self, entries: Sequence[Entry]) -> frozenset[str]: ...

    @abstractmethod
    async def _finish(self, endings: Sequence[Ending]) -> frozenset[str]: ...

    @abstractmethod
    async def _hand_back(self, worker_id: str, died: bool) -> int: ...


def _is_final(event: JobEvent) -> bool:
    return event.type == "state" and event.data.get("state") in FINAL_JOB_STATES
