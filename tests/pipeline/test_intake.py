"""Uploads become versions and jobs that agree, and stay so through cancel, retry and delete."""

import hashlib
from collections.abc import AsyncIterator

import pytest

from penstock.errors import Conflict, NotFound, Overloaded
from penstock.jobs import JobsOptions, JobStore, open_store
from penstock.jobs.base import JobFilter, Outcome
from penstock.jobs.options import Limit
from penstock.ledger import Ledger, open_ledger
from penstock.pipeline.intake import Intake, Upload
from penstock.types import DocumentStatus, Failure, JobState, Priority


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    async with open_ledger("memory://") as opened:
        yield opened


@pytest.fixture
async def jobs() -> AsyncIterator[JobStore]:
    narrow = {Priority.BULK: Limit(jobs=3, payload_bytes=10_000)}
    async with open_store("memory://", JobsOptions(limits=narrow, tenant_limits=narrow)) as opened:
        yield opened


@pytest.fixture
def intake(ledger: Ledger, jobs: JobStore) -> Intake:
    return Intake(ledger, jobs)


def upload(name: str, text: str = "words") -> Upload:
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return Upload(name=name, sha256=sha256, size_bytes=len(text), media_type="text/plain")


async def test_a_document_and_its_job_agree(intake: Intake, jobs: JobStore) -> None:
    (accepted,) = await intake.add("default", "default", [upload("a")])
    job = await jobs.get(accepted.document.job_id)
    assert (job.state, job.subject) == (JobState.QUEUED, accepted.document.version_id)


async def test_same_bytes_in_flight_are_recognised(intake: Intake, jobs: JobStore) -> None:
    (first,) = await intake.add("default", "default", [upload("a")])
    (second,) = await intake.add("default", "default", [upload("a")])
    assert (second.created, second.document.job_id) == (False, first.document.job_id)
    assert await jobs.count(JobFilter()) == 1


async def test_only_the_default_collection_is_made_on_demand(intake: Intake) -> None:
    with pytest.raises(NotFound, match="elsewhere"):
        await intake.add("default", "elsewhere", [upload("a")])


async def test_over_the_limit_nothing_of_the_call_stays(intake: Intake, ledger: Ledger, jobs: JobStore) -> None:
    with pytest.raises(Overloaded):
        await intake.add("default", "default", [upload(f"{i}") for i in range(4)])
    assert await jobs.count(JobFilter()) == 0
    assert not await ledger.pending_versions()


async def test_cancelled_upload_can_be_retried(intake: Intake, ledger: Ledger) -> None:
    (accepted,) = await intake.add("default", "default", [upload("a")])
    document = accepted.document
    await intake.cancel(document.job_id)
    assert (await ledger.get_document("default", document.id)).status is DocumentStatus.CANCELLED
    job = await intake.retry(document.job_id)
    assert job.state is JobState.QUEUED
    assert (await ledger.get_document("default", document.id)).status is DocumentStatus.PENDING


@pytest.mark.case(10)
async def test_cancel_of_a_running_ingest_makes_its_version_unsearchable(
    intake: Intake, ledger: Ledger, jobs: JobStore
) -> None:
    (accepted,) = await intake.add("default", "default", [upload("a")])
    (running,) = await jobs.lease("wrk", kinds=["ingest"], n=1)
    await intake.cancel(running.id)
    assert not await ledger.finish_version(accepted.document.version_id, [], pages=0)
    await jobs.finish([(running.id, running.attempt, Outcome(result={}))])
    assert (await jobs.get(running.id)).state is JobState.CANCELLED


@pytest.mark.case(11)
async def test_deleted_document_takes_its_job_along_and_cannot_be_retried(intake: Intake, jobs: JobStore) -> None:
    (accepted,) = await intake.add("default", "default", [upload("a")])
    await intake.delete("default", accepted.document.id)
    assert (await jobs.get(accepted.document.job_id)).state is JobState.CANCELLED
    with pytest.raises(Conflict, match="deleted or replaced"):
        await intake.retry(accepted.document.job_id)


async def test_retry_of_a_failed_ingest_opens_its_version(intake: Intake, ledger: Ledger, jobs: JobStore) -> None:
    (accepted,) = await intake.add("default", "default", [upload("a")])
    (running,) = await jobs.lease("wrk", kinds=["ingest"], n=1)
    failure = Failure(code="parse_failed", message="unreadable")
    await ledger.fail_version(accepted.document.version_id, failure)
    await jobs.finish([(running.id, running.attempt, Outcome(failure=failure))])
    await intake.retry(running.id)
    assert (await ledger.get_document("default", accepted.document.id)).status is DocumentStatus.PENDING
