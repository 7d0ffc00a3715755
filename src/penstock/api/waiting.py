"""Calls that wait for their job, and what becomes of the job when the caller leaves."""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, cast

import anyio
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.problems import failure_problem
from penstock.api.promises import lost
from penstock.api.sse import unless_gone
from penstock.api.state import ApiState
from penstock.errors import DeadlineExceeded, NotFound, Unavailable
from penstock.jobs.base import Enqueued
from penstock.pipeline.requests import Kind, encode
from penstock.types import Failure, Job, JobEvent, JobState, NewJob, Priority

GRACE_S: Final = 0.5
"""How much longer than its deadline a job is waited for, so that its own failure is what the caller sees."""


def interactive_job(
    kind: Kind, request: object, *, tenant: str, timeout_s: float, idempotency_key: str | None = None
) -> NewJob:
    """A job that someone waits for: first in line, and of no use after `timeout_s`."""
    return NewJob(
        kind=kind,
        payload=encode(request),
        tenant=tenant,
        priority=Priority.INTERACTIVE,
        idempotency_key=idempotency_key,
        deadline=time.time() + timeout_s,
        time_limit_s=timeout_s,
    )


async def submit(state: ApiState, job: NewJob) -> Enqueued:
    return (await state.services.jobs.enqueue([job]))[0]


def watch(state: ApiState, job_id: str, *, after: int = 0) -> AsyncGenerator[JobEvent, None]:
    """The job's events as they come, to be closed by the caller."""
    return cast("AsyncGenerator[JobEvent, None]", state.services.jobs.watch(job_id, after=after))


async def look_up(state: ApiState, job_id: str, tenant: str) -> Job:
    """The job; failed as `lost` where it was promised and its store lost it. Raises NotFound."""
    try:
        return await state.services.jobs.get(job_id, tenant=tenant)
    except NotFound:
        if job := state.promises.lost(job_id, tenant):
            return job
        raise


async def wait_attended(state: ApiState, request: Request, enqueued: Enqueued, wait_s: float) -> Job | None:
    """The job when it is final, failed as `lost` too, or as it is after `wait_s`; None when the client left.

    A job that nobody else wants is cancelled when its client leaves.
    """
    job_id = enqueued.job.id

    async def wait() -> Job:
        try:
            return await state.services.jobs.wait(job_id, timeout_s=wait_s)
        except NotFound:
            return lost(enqueued.job)

    with state.watchers.watching(job_id, created=enqueued.created):
        job = await unless_gone(request.receive, wait)
        if job is None:
            await abandon(state, job_id)
        elif not job.state.final:
            state.watchers.keep(job_id)
    return job


async def abandon(state: ApiState, job_id: str) -> None:
    """Cancels a job that its last watcher, who calls this, is leaving; also while that is being cancelled itself."""
    if state.watchers.alone(job_id):
        with anyio.CancelScope(shield=True), suppress(NotFound):
            await state.services.intake.cancel(job_id)
        state.metrics.abandoned.inc()


def failed(request: Request, job: Job) -> Response:
    """The answer to a caller whose job did not succeed."""
    if job.state is JobState.CANCELLED:
        return failure_problem(request, Failure(code="conflict", message="The job was cancelled."))
    return failure_problem(request, job.error or Failure(code="internal", message="The job failed without a reason."))


async def too_late(state: ApiState, job_id: str, waited_s: float) -> DeadlineExceeded | Unavailable:
    """Cancels a job that took too long; the error says whether anyone was there to do it."""
    await state.services.intake.cancel(job_id)
    if any(worker.ready for worker in await state.services.jobs.workers()):
        return DeadlineExceeded(f"No result within {waited_s:g} s. Try again, or give it a larger timeout_s.")
    return Unavailable("No worker is ready to do this. Start one (`penstock worker`) or wait until it has loaded.")
