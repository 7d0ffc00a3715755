"""Gathers a batch in a worker: its files, archives, URLs and folders become documents, a few hundred at a time.

Each step is recorded in the ledger together with how far it is, so a worker may be killed at any moment: the next one
goes on behind the last step, and no document is there twice.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from penstock.errors import Overloaded, PenstockError
from penstock.jobs.base import JobStore
from penstock.jobs.worker import JobContext
from penstock.ledger.base import Accepted, Ledger
from penstock.ledger.batch_records import BatchWork, NewItem, Position
from penstock.pipeline.batch_metrics import ENDED, ITEMS
from penstock.pipeline.batch_sources import Sources, Step
from penstock.pipeline.intake import IntakeOptions, ingest_job
from penstock.pipeline.requests import BatchRequest, decode, encode
from penstock.types import JSON, Failure

SLICE_STEPS = 200
SLICE_BYTES = 16 * 1024 * 1024
AT_ONCE = 8
SOURCES_A_PAGE = 500
LONGEST_WAIT_S = 30.0

ReportProgress = Callable[[str, int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The result of a gathering job: how many items the job added."""

    items: int


class Gatherer:
    """One object a worker, several batches at once."""

    def __init__(self, ledger: Ledger, jobs: JobStore, sources: Sources, options: IntakeOptions | None = None) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._sources = sources
        self._options = options or IntakeOptions()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def handle(self, context: JobContext) -> JSON:
        """A job of the kind `batch`."""
        batch_id = decode(BatchRequest, context.job.payload).batch_id
        try:
            return encode(await self.gather(batch_id, context.progress))
        except PenstockError as exc:
            if not exc.retryable or context.job.last_attempt:
                failure = Failure(code=exc.code, message=exc.message, attempt=context.attempt, at=time.time())
                if await self._ledger.batches.close(batch_id, failure):
                    ENDED.labels("failed").inc()
            raise

    async def gather(self, batch_id: str, report: ReportProgress) -> Gathered:
        """To its end, or until it was cancelled. Raises what keeps it from going on."""
        work = await self._ledger.batches.work(batch_id)
        if work is None:
            return Gathered(items=0)
        position, items = work.position, 0
        async with aclosing(self._slices(work)) as slices:
            async for steps in slices:
                made = await self._make(steps)
                to = steps[-1].position
                accepted = await self._ledger.batches.add(batch_id, position, to, made)
                if accepted is None:  # cancelled, or another attempt is at it
                    return Gathered(items=items)
                await self._enqueue(work, accepted)
                _count(steps, made, accepted)
                position, items = to, items + len(made)
                await report("gather", items, 0)
        if await self._ledger.batches.close(batch_id):
            ENDED.labels("gathered").inc()
        return Gathered(items=items)

    async def _slices(self, work: BatchWork) -> AsyncGenerator[Sequence[Step], None]:
        steps: list[Step] = []
        held = 0
        async with aclosing(self._steps(work)) as coming:
            async for step in coming:
                steps.append(step)
                held += step.held_bytes
                if len(steps) >= SLICE_STEPS or held >= SLICE_BYTES:
                    yield steps
                    steps, held = [], 0
        if steps:
            yield steps

    async def _steps(self, work: BatchWork) -> AsyncGenerator[Step, None]:
        first = work.position.source
        while page := await self._ledger.batches.sources(work.batch_id, first=first, limit=SOURCES_A_PAGE):
            for source in page:
                after = work.position.entry if source.seq == work.position.source else ""
                async with aclosing(self._sources.steps(work, source, after)) as steps:
                    async for step in steps:
                        yield step
                yield Step(position=Position(source=source.seq + 1), kind=source.kind)
            first = page[-1].seq + 1

    async def _make(self, steps: Sequence[Step]) -> list[NewItem]:
        async def make(step: Step) -> NewItem | None:
            async with self._turns:
                return await self._sources.make(step)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(make(step)) for step in steps if step.takes_work]
        except* PenstockError as errors:
            raise _first(errors) from None
        return [item for task in tasks if (item := task.result()) is not None]

    async def _enqueue(self, work: BatchWork, accepted: Sequence[Accepted]) -> None:
        """Waits while the queue is full: that is what holds a batch of a million files back."""
        jobs = [
            ingest_job(one.document.version_id, one.document.job_id, work.tenant, work.priority, self._options)
            for one in accepted
            if one.created
        ]
        while jobs:
            try:
                await self._jobs.enqueue(jobs)
            except Overloaded as exc:
                await asyncio.sleep(min(exc.retry_after_s, LONGEST_WAIT_S))
            else:
                return


def _count(steps: Sequence[Step], made: Sequence[NewItem], accepted: Sequence[Accepted]) -> None:
    kind = steps[0].kind
    ITEMS.labels(kind, "refused").inc(sum(item.error is not None for item in made))
    ITEMS.labels(kind, "accepted").inc(sum(one.created for one in accepted))
    ITEMS.labels(kind, "unchanged").inc(sum(not one.created for one in accepted))


def _first(group: BaseExceptionGroup[PenstockError]) -> PenstockError:
    one: BaseException = group
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    assert isinstance(one, PenstockError)
    return one
