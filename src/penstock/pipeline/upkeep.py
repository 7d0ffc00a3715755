"""What keeps the stores saying the same without anyone's help: reconcile, purge, sweep, mend, tidy.

- reconcile: every pending version, every batch being gathered and every reindex must have a live job; one whose
  job is lost (Redis flushed, a crash between ledger and queue) is enqueued again, one whose job ended without it takes
  over the job's end.
- purge: versions that were deleted or replaced leave the index, then the ledger; so do places in the index that a
  reindex left.
- sweep: blobs that nothing refers to any more leave the blob store, a day after they were last put; the record of old
  batches is dropped.
- mend: a collection of which the index has lost rows is rebuilt from the ledger (see `mending`).
- tidy: the index engine merges its small files and indexes fresh rows.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from penstock.blobs.base import BlobStore
from penstock.errors import NotFound, PenstockError
from penstock.jobs.base import JobStore
from penstock.ledger.base import Generation, Ledger, VersionWork
from penstock.ledger.batch_records import BatchWork
from penstock.pipeline.batches import batch_job
from penstock.pipeline.intake import IntakeOptions, ingest_job
from penstock.pipeline.mending import Mender
from penstock.pipeline.reindexing import reindex_job
from penstock.stores.base import IndexStore
from penstock.stores.places import places
from penstock.types import Failure, Job, JobState, Priority

logger = logging.getLogger(__name__)

BLOBS_A_LOOK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepOptions:
    reconcile_every_s: float = 10.0
    purge_every_s: float = 5.0
    sweep_every_s: float = 3600.0
    blob_age_s: float = 24 * 3600.0
    """An upload puts its blob first and refers to it later; putting it again makes it young again."""
    batch_age_s: float = 30 * 24 * 3600.0
    """How long one can ask what became of a batch."""
    retired_s: float = 600.0
    """How long the old place of a reindexed collection is kept for whoever still searches or writes there."""
    mend_every_s: float = 60.0
    tidy_every_s: float = 2.0
    """Cheap when nothing was written; fresh rows are searched slowly until they are indexed."""


class Upkeep:
    """One object a worker; `run` until cancelled. All workers tidy what they keep open; one of them does the rest."""

    def __init__(
        self,
        *,
        worker_id: str,
        ledger: Ledger,
        jobs: JobStore,
        index: IndexStore,
        blobs: BlobStore,
        options: UpkeepOptions,
        intake: IntakeOptions,
    ) -> None:
        self._worker_id = worker_id
        self._ledger = ledger
        self._jobs = jobs
        self._index = index
        self._blobs = blobs
        self._options = options
        self._intake = intake
        self._mender = Mender(ledger, jobs, index)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_repeat(self._if_chosen(self.reconcile), self._options.reconcile_every_s))
            group.create_task(_repeat(self._if_chosen(self.purge), self._options.purge_every_s))
            group.create_task(_repeat(self._if_chosen(self.sweep), self._options.sweep_every_s))
            group.create_task(_repeat(self._if_chosen(self._mender.mend), self._options.mend_every_s))
            group.create_task(_repeat(self._index.optimise, self._options.tidy_every_s))

    def _if_chosen(self, step: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        """The step, but only while we are the first of the living workers."""

        async def chosen() -> None:
            workers = await self._jobs.workers()
            if self._worker_id <= min((worker.id for worker in workers), default=self._worker_id):
                await step()

        return chosen

    async def reconcile(self) -> int:
        """Returns how many pending versions had no live job."""
        mended, after = 0, ""
        while page := await self._ledger.pending_versions(after=after):
            for work in page:
                mended += await self._reconcile_one(work)
            after = page[-1].version_id
        after = ""
        while batches := await self._ledger.batches.gathering(after=after):
            for batch in batches:
                mended += await self._reconcile_batch(batch)
            after = batches[-1].batch_id
        for generation in await self._ledger.generations.all_building():
            mended += await self._reconcile_generation(generation)
        if mended:
            logger.warning("%d document(s) or batch(es) had no live job and were taken care of", mended)
        return mended

    async def purge(self) -> int:
        """Returns how many versions were taken out."""
        purged = 0
        while page := await self._ledger.garbage():
            by_place = defaultdict[str, list[str]](list)
            for one in page:
                for index_id in one.index_ids:
                    by_place[index_id].append(one.version_id)
            for index_id, version_ids in by_place.items():
                for place in places(index_id):
                    await self._index.delete(place, version_ids=version_ids)
            await self._ledger.forget([one.version_id for one in page])
            purged += len(page)
        for index_id in await self._ledger.generations.retired(older_than_s=self._options.retired_s):
            for place in places(index_id):
                await self._index.drop(place)
            await self._ledger.generations.forget(index_id)
        return purged

    async def sweep(self) -> int:
        """Returns how many blobs were deleted."""
        swept, batch = 0, list[str]()
        async for blob in self._blobs.list(older_than_s=self._options.blob_age_s):
            batch.append(blob.sha256)
            if len(batch) == BLOBS_A_LOOK:
                swept += await self._sweep(batch)
                batch = []
        await self._ledger.batches.forget(older_than_s=self._options.batch_age_s)
        return swept + await self._sweep(batch)

    async def _sweep(self, sha256s: Sequence[str]) -> int:
        dead = set(sha256s) - await self._ledger.live_blobs(sha256s)
        for sha256 in dead:
            await self._blobs.delete(sha256)
        return len(dead)

    async def _reconcile_one(self, work: VersionWork) -> bool:
        try:
            job = await self._jobs.get(work.job_id)
        except NotFound:
            await self._jobs.enqueue(
                [ingest_job(work.version_id, work.job_id, work.tenant, Priority.BULK, self._intake)]
            )
            return True
        if not job.state.final:
            return False
        return await self._take_over_end(work, job)

    async def _reconcile_batch(self, batch: BatchWork) -> bool:
        try:
            job = await self._jobs.get(batch.job_id)
        except NotFound:
            await self._jobs.enqueue([batch_job(batch.batch_id, batch.job_id, batch.tenant)])
            return True
        if not job.state.final:
            return False
        lost = Failure(code="lost", message="The job ended before all was gathered. Retry the batch: it goes on there.")
        return await self._ledger.batches.close(batch.batch_id, job.error or lost)

    async def _reconcile_generation(self, generation: Generation) -> bool:
        try:
            job = await self._jobs.get(generation.job_id)
        except NotFound:
            await self._jobs.enqueue([reindex_job(generation)])
            return True
        if job.state.final:
            await self._ledger.generations.abandon(generation.id)
        return job.state.final

    async def _take_over_end(self, work: VersionWork, job: Job) -> bool:
        """The job ended and the version did not: its worker died too often, ran out of time, or was cancelled."""
        if (await self._ledger.get_version(work.version_id)).status.final:
            return False  # it ended between the two look-ups
        if job.state is JobState.CANCELLED:
            await self._ledger.cancel_version(work.version_id)
        else:
            lost = Failure(code="lost", message="The job ended without a result. Retry the document.")
            await self._ledger.fail_version(work.version_id, job.error or lost)
        return True


async def _repeat(step: Callable[[], Awaitable[object]], every_s: float) -> None:
    """Runs a step for ever, with a pause between; a store that is away for a while is tried again."""
    while True:
        try:
            await step()
        except PenstockError as exc:
            logger.warning("Upkeep could not be done and will be tried again: %s", exc)
        except Exception:
            logger.exception("Upkeep failed and will be tried again")
        await asyncio.sleep(every_s)
