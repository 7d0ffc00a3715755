"""The door of batches: many documents under one id, cancelled and retried as one. `gather` does the work.

The batch is in the ledger before its job is in the queue. Where the queue does not take the job, the reconciler puts it
there later, so a batch that was accepted is gathered in the end.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock.errors import Conflict, NotFound, Overloaded
from penstock.ids import new_id
from penstock.jobs.base import JobStore
from penstock.ledger.base import Ledger
from penstock.ledger.batch_records import NewBatch, NewSource
from penstock.pipeline.intake import Intake, IntakeOptions, ingest_job, open_collection
from penstock.pipeline.requests import BatchRequest, Kind, encode
from penstock.types import Batch, BatchItem, BatchItemState, NewJob, Priority

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 12 * 3600.0
MAX_ATTEMPTS = 6
AT_ONCE = 16
JOBS_A_CALL = 500
UNFINISHED = frozenset({BatchItemState.FAILED, BatchItemState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """`documents`: how many are ingested again. `gathering`: whether what could not be gathered is tried again."""

    documents: int
    gathering: bool


def batch_job(batch_id: str, job_id: str, tenant: str) -> NewJob:
    """The one way to say "gather this batch", for a new one as for one whose job was lost."""
    return NewJob(
        id=job_id,
        kind=Kind.BATCH,
        payload=encode(BatchRequest(batch_id=batch_id)),
        tenant=tenant,
        priority=Priority.NORMAL,
        subject=batch_id,
        time_limit_s=TIME_LIMIT_S,
        max_attempts=MAX_ATTEMPTS,
    )


class Batches:
    """Stateless but for the stores it stands on; one object a process."""

    def __init__(self, ledger: Ledger, jobs: JobStore, intake: Intake, options: IntakeOptions | None = None) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._intake = intake
        self._options = options or IntakeOptions()

    async def create(
        self,
        tenant: str,
        collection: str,
        sources: Sequence[NewSource],
        *,
        priority: Priority = Priority.BULK,
        idempotency_key: str | None = None,
        fingerprint: str = "",
    ) -> tuple[Batch, bool]:
        """The batch, and whether it is new. When this returns it is durable. `NotFound`, `Conflict` (the key)."""
        await open_collection(self._ledger, tenant, collection)
        new = NewBatch(
            job_id=new_id("job"),
            sources=sources,
            priority=priority,
            idempotency_key=idempotency_key,
            fingerprint=fingerprint,
        )
        batch, created = await self._ledger.batches.create(tenant, collection, new)
        if created:
            await self._enqueue(batch.id, batch.job_id, tenant)
        return batch, created

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """What is done stays; nothing else of it will be searchable. `NotFound`."""
        jobs = await self._ledger.batches.cancel(tenant, batch_id)
        for some in _slices(jobs):
            await self._jobs.cancel_many(some)
        return await self._ledger.batches.get(tenant, batch_id)

    async def retry(self, tenant: str, batch_id: str) -> Retried:
        """Failed and cancelled documents are ingested again; a batch that was not gathered whole goes on, and URLs that
        failed are fetched again. `NotFound`."""
        documents, cursor = 0, None
        while True:
            page = await self._ledger.batches.items(tenant, batch_id, UNFINISHED, cursor=cursor, limit=JOBS_A_CALL)
            documents += await self._retry(tenant, page.items)
            if (cursor := page.cursor) is None:
                break
        job_id = new_id("job")
        gathering = await self._ledger.batches.gather_again(tenant, batch_id, job_id)
        if gathering:
            await self._enqueue(batch_id, job_id, tenant)
        return Retried(documents=documents, gathering=gathering)

    async def _retry(self, tenant: str, items: Sequence[BatchItem]) -> int:
        todo = iter(items)

        async def some() -> int:
            return sum([await self._retry_one(tenant, item) for item in todo])

        return sum(await asyncio.gather(*(some() for _ in range(AT_ONCE))))

    async def _retry_one(self, tenant: str, item: BatchItem) -> bool:
        if item.job_id is None or item.version_id is None:
            return False
        try:
            with suppress(Conflict):
                await self._intake.retry(item.job_id, tenant=tenant)
                return True
            return await self._anew(tenant, item.version_id, new_id("job"))
        except NotFound:  # the job is forgotten by now
            return await self._anew(tenant, item.version_id, item.job_id)

    async def _anew(self, tenant: str, version_id: str, job_id: str) -> bool:
        """False when the document was deleted or replaced since."""
        if not await self._ledger.reopen_version(version_id, job_id):
            return False
        await self._jobs.enqueue([ingest_job(version_id, job_id, tenant, Priority.BULK, self._options)])
        return True

    async def _enqueue(self, batch_id: str, job_id: str, tenant: str) -> None:
        try:
            await self._jobs.enqueue([batch_job(batch_id, job_id, tenant)])
        except Overloaded:
            logger.warning("The queue is full: batch %s is gathered once there is room", batch_id)


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + JOBS_A_CALL] for start in range(0, len(ids), JOBS_A_CALL))
