"""The stores are brought back to saying the same: lost jobs, jobs that ended alone, garbage, dead blobs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
import pytest

from penstock.blobs import open_blobs
from penstock.blobs.base import BlobStore
from penstock.ids import chunk_id
from penstock.jobs import JobStore, open_store
from penstock.jobs.base import Outcome
from penstock.ledger import Ledger, open_ledger
from penstock.pipeline.intake import Intake, IntakeOptions, Upload
from penstock.pipeline.upkeep import Upkeep, UpkeepOptions
from penstock.stores import IndexRow, IndexStore, open_index
from penstock.types import Chunk, Document, DocumentStatus, Failure, JobState


@dataclass
class House:
    """Stores in memory, and what keeps them in step."""

    ledger: Ledger
    jobs: JobStore
    index: IndexStore
    blobs: BlobStore

    def upkeep(self, jobs: JobStore | None = None) -> Upkeep:
        return Upkeep(
            worker_id="wrk",
            ledger=self.ledger,
            jobs=jobs or self.jobs,
            index=self.index,
            blobs=self.blobs,
            options=UpkeepOptions(blob_age_s=0),
            intake=IntakeOptions(),
        )

    async def add(self, name: str = "a", text: bytes = b"words") -> Document:
        blob = await self.blobs.put(text)
        upload = Upload(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes, media_type="text/plain")
        return (await Intake(self.ledger, self.jobs).add("default", "default", [upload]))[0].document

    async def finish(self, document: Document) -> None:
        """As a worker would: one chunk in index and ledger."""
        chunk = Chunk(
            id=chunk_id(document.version_id, 0),
            document_id=document.id,
            version_id=document.version_id,
            collection_id=document.collection_id,
            position=0,
            text="words",
            start=0,
            end=5,
            tokens=1,
        )
        await self.index.create(document.collection_id, 2)
        row = IndexRow(
            chunk_id=chunk.id,
            document_id=document.id,
            version_id=document.version_id,
            text=chunk.text,
            vector=np.array([1, 0], np.float32),
        )
        await self.index.upsert(document.collection_id, [row])
        assert await self.ledger.finish_version(document.version_id, [chunk], pages=1)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with (
        open_ledger("memory://") as ledger,
        open_store("memory://") as jobs,
        open_index("memory://") as index,
        open_blobs("memory://") as blobs,
    ):
        yield House(ledger, jobs, index, blobs)


@pytest.mark.case(15)
async def test_a_lost_job_is_enqueued_again_once(house: House) -> None:
    document = await house.add()
    async with open_store("memory://") as flushed:
        assert await house.upkeep(flushed).reconcile() == 1
        assert await house.upkeep(flushed).reconcile() == 0
        job = await flushed.get(document.job_id)
    assert (job.state, job.subject) == (JobState.QUEUED, document.version_id)


async def test_a_version_takes_over_the_failure_of_its_job(house: House) -> None:
    document = await house.add()
    (running,) = await house.jobs.lease("dead", kinds=["ingest"], n=1)
    died = Failure(code="worker_died", message="three times")
    await house.jobs.finish([(running.id, running.attempt, Outcome(failure=died))])
    assert await house.upkeep().reconcile() == 1
    seen = await house.ledger.get_document("default", document.id)
    assert (seen.status, seen.error and seen.error.code) == (DocumentStatus.FAILED, "worker_died")


async def test_a_version_takes_over_the_cancel_of_its_job(house: House) -> None:
    document = await house.add()
    await house.jobs.cancel(document.job_id)
    assert await house.upkeep().reconcile() == 1
    assert (await house.ledger.get_document("default", document.id)).status is DocumentStatus.CANCELLED


async def test_deleted_documents_leave_the_index_and_their_blobs_the_store(house: House) -> None:
    gone, kept = await house.add("gone", b"one"), await house.add("kept", b"two")
    for document in (gone, kept):
        await house.finish(document)
    await house.ledger.delete_document("default", gone.id)
    assert await house.upkeep().purge() == 1
    assert await house.upkeep().purge() == 0
    assert await house.index.count(kept.collection_id) == 1
    assert await house.upkeep().sweep() == 1
    assert [blob.sha256 async for blob in house.blobs.list()] == [kept.sha256]
