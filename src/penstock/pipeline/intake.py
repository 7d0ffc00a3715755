"""The door of the pipeline: uploads become versions in the ledger and jobs in the queue, and jobs of documents are
cancelled, retried and deleted so that ledger and queue keep saying the same.

The ledger is written first, since it is the truth: a crash before the enqueue leaves a pending version, which the
reconciler enqueues (`penstock.pipeline.upkeep`).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from penstock.errors import Conflict, NotFound, Overloaded
from penstock.filters import matches, parse_filter
from penstock.ids import new_id
from penstock.jobs.base import JobFilter, JobStore
from penstock.ledger.base import Accepted, Ledger, NewVersion
from penstock.pipeline.requests import BatchRequest, IngestRequest, Kind, ReindexRequest, decode, encode
from penstock.types import (
    DEFAULT_TENANT,
    JSON,
    Collection,
    CollectionOptions,
    Document,
    DocumentStatus,
    Job,
    JobState,
    NewJob,
    Priority,
)

DEFAULT_COLLECTION = "default"
DELETED_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file whose bytes are in the blob store already."""

    name: str
    sha256: str
    size_bytes: int
    media_type: str
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """`time_limit_s` bounds one attempt at one document; `max_attempts` counts the first one."""

    time_limit_s: float = 1800.0
    max_attempts: int = 4


def ingest_job(version_id: str, job_id: str, tenant: str, priority: Priority, options: IntakeOptions) -> NewJob:
    """The one way to say "ingest this version", for a new upload as for one whose job was lost."""
    return NewJob(
        id=job_id,
        kind=Kind.INGEST,
        payload=encode(IngestRequest(version_id=version_id)),
        tenant=tenant,
        priority=priority,
        subject=version_id,
        time_limit_s=options.time_limit_s,
        max_attempts=options.max_attempts,
    )


async def open_collection(ledger: Ledger, tenant: str, name: str) -> Collection:
    """The collection; the one named "default" is made when it is first asked for. `NotFound` for any other."""
    try:
        return await ledger.get_collection(tenant, name)
    except NotFound:
        if name != DEFAULT_COLLECTION:
            raise
    with suppress(Conflict):  # somebody else asked first, at the same moment
        return await ledger.create_collection(tenant, name, CollectionOptions())
    return await ledger.get_collection(tenant, name)


class Intake:
    """Stateless but for the stores it stands on; one object a process."""

    def __init__(self, ledger: Ledger, jobs: JobStore, options: IntakeOptions | None = None) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._options = options or IntakeOptions()

    async def ensure_collection(self, tenant: str, name: str) -> None:
        """`NotFound` for an unknown collection; the default one is made."""
        await open_collection(self._ledger, tenant, name)

    async def add(
        self, tenant: str, collection: str, uploads: Sequence[Upload], *, priority: Priority = Priority.BULK
    ) -> Sequence[Accepted]:
        """Accepts uploads, in order. When it returns, each is durable in ledger and queue.

        Raises `NotFound` (collection), `InvalidInput` (a name) and `Overloaded`; then none of them is accepted.
        """
        await self.ensure_collection(tenant, collection)
        versions = [
            NewVersion(
                name=upload.name,
                sha256=upload.sha256,
                size_bytes=upload.size_bytes,
                media_type=upload.media_type,
                job_id=new_id("job"),
                metadata=upload.metadata,
            )
            for upload in uploads
        ]
        accepted = await self._ledger.accept(tenant, collection, versions)
        created = [one.document for one in accepted if one.created]
        try:
            await self._jobs.enqueue([self._job(document, priority) for document in created])
        except Overloaded:
            for document in created:
                await self._ledger.cancel_version(document.version_id)
            raise
        return accepted

    async def delete(self, tenant: str, document_id: str) -> Document:
        """From now on the document is gone for everyone; a running ingest of it is cancelled. `NotFound`."""
        document = await self._ledger.delete_document(tenant, document_id)
        await self._jobs.cancel_all(JobFilter(tenant=tenant, subject=document.version_id))
        return document

    async def delete_matching(
        self,
        tenant: str,
        collection: str,
        where: JSON,
        statuses: frozenset[DocumentStatus] = frozenset(),
        *,
        dry_run: bool = False,
    ) -> tuple[int, int]:
        """Deletes a collection's documents whose metadata pass the filter; returns how many match, and were deleted.

        Each few hundred in one moment. `InvalidInput` (the filter), `NotFound` (collection).
        """
        wanted = parse_filter(where)
        matching: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._ledger.list_documents(tenant, collection, statuses, cursor=cursor, limit=DELETED_AT_ONCE)
            matching += [document.id for document in page.documents if matches(wanted, document.metadata)]
            if (cursor := page.cursor) is None:
                break
        deleted = 0
        for start in range(0, 0 if dry_run else len(matching), DELETED_AT_ONCE):
            gone = await self._ledger.delete_documents(tenant, matching[start : start + DELETED_AT_ONCE])
            await self._jobs.cancel_many([document.job_id for document in gone if not document.status.final])
            deleted += len(gone)
        return len(matching), deleted

    async def cancel(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Cancels any job. An ingest's version cannot become searchable any more, whatever its handler still does."""
        job = await self._jobs.cancel(job_id, tenant=tenant)
        if job.kind == Kind.INGEST and (job.cancel_requested or job.state is JobState.CANCELLED):
            await self._ledger.cancel_version(decode(IngestRequest, job.payload).version_id)
        if job.kind == Kind.BATCH and (job.cancel_requested or job.state is JobState.CANCELLED):
            await self._jobs.cancel_many(
                await self._ledger.batches.cancel(job.tenant, decode(BatchRequest, job.payload).batch_id)
            )
        if job.kind == Kind.REINDEX and (job.cancel_requested or job.state is JobState.CANCELLED):
            await self._ledger.generations.abandon(decode(ReindexRequest, job.payload).generation_id)
        return job

    async def retry(self, job_id: str, *, tenant: str | None = None) -> Job:
        """Gives a failed or cancelled job new attempts; `Conflict` for any other, and for a document that is gone."""
        job = await self._jobs.get(job_id, tenant=tenant)
        ended = job.state in {JobState.FAILED, JobState.CANCELLED}
        if ended and job.kind == Kind.INGEST and not await self._reopen(job):
            raise Conflict("The document was deleted or replaced since; there is nothing to retry.")
        return await self._jobs.retry(job_id, tenant=tenant)

    async def _reopen(self, job: Job) -> bool:
        """Before the retry, since a worker may lease the job at once."""
        return await self._ledger.reopen_version(decode(IngestRequest, job.payload).version_id, job.id)

    def _job(self, document: Document, priority: Priority) -> NewJob:
        return ingest_job(document.version_id, document.job_id, document.tenant, priority, self._options)


__all__ = ["DEFAULT_COLLECTION", "DEFAULT_TENANT", "Intake", "IntakeOptions", "Upload", "ingest_job"]
