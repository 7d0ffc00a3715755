"""`/v1/jobs`: what was asked for and how far it is; events, cancel, retry, one by one and in bulk."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from penstock.api.answers import Jobs, JobsChanged
from penstock.api.auth import Caller, Reader, Writer
from penstock.api.json_io import reply
from penstock.api.routing import BODY, EVENTS, StrictRoute, refusals
from penstock.api.schemas import JobsSelection
from penstock.api.sse import EventStream, event
from penstock.api.state import ApiState, State
from penstock.api.waiting import look_up, watch
from penstock.errors import Conflict, NotFound
from penstock.jobs.base import JobFilter
from penstock.types import Job, JobState, Priority

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

CANCELLABLE = frozenset({JobState.QUEUED, JobState.RUNNING})
RETRYABLE = frozenset({JobState.FAILED, JobState.CANCELLED})


@router.get("", response_model=Jobs, responses=refusals())
async def list_jobs(
    state: State,
    caller: Reader,
    states: Annotated[list[JobState] | None, Query(alias="state", description="One or more.")] = None,
    kinds: Annotated[list[str] | None, Query(alias="kind", description="One or more.", max_length=16)] = None,
    priorities: Annotated[list[Priority] | None, Query(alias="priority", description="One or more.")] = None,
    subject: Annotated[str | None, Query(max_length=128, description="What the job is about.")] = None,
    cursor: Annotated[str | None, Query(max_length=512, description="From the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Jobs, newest first."""
    where = JobFilter(
        tenant=caller.tenant,
        states=frozenset(states or ()),
        kinds=frozenset(kinds or ()),
        priorities=frozenset(priorities or ()),
        subject=subject,
    )
    return reply(await state.services.jobs.list(where, cursor=cursor, limit=limit))


@router.post("/cancel", response_model=JobsChanged, responses=refusals(*BODY))
async def cancel_jobs(body: JobsSelection, state: State, caller: Writer) -> Response:
    """Cancel every queued or running job that matches."""
    where = _selected(body, caller, CANCELLABLE)
    if where is None:
        return reply({"matched": 0, "changed": 0})
    matched = await state.services.jobs.count(where)
    changed = 0 if body.dry_run else await state.services.jobs.cancel_all(where)
    return reply({"matched": matched, "changed": changed})


@router.post("/retry", response_model=JobsChanged, responses=refusals(*BODY))
async def retry_jobs(body: JobsSelection, state: State, caller: Writer) -> Response:
    """Retry every failed job that matches (cancelled ones too, where `states` asks for them)."""
    where = _selected(body, caller, RETRYABLE, default=frozenset({JobState.FAILED}))
    if where is None:
        return reply({"matched": 0, "changed": 0})
    matched = await state.services.jobs.count(where)
    changed = 0 if body.dry_run else await _retry_all(state, where)
    return reply({"matched": matched, "changed": changed})


@router.get("/{job_id}", response_model=Job, responses=refusals(404))
async def get_job(job_id: str, state: State, caller: Reader) -> Response:
    """One job, with every attempt that failed."""
    return reply(await look_up(state, job_id, caller.tenant))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses=refusals(404)
    | {
        200: {
            "description": "Server-sent events: `state`, `progress`, `delta`.",
            "content": EVENTS,
        },
        204: {"description": "The job has ended and there is nothing more to tell: do not connect again."},
    },
)
async def watch_job(
    job_id: str,
    state: State,
    caller: Reader,
    after: Annotated[int, Query(ge=0, le=2**53, description="Only events with a greater id.")] = 0,
    last_event_id: Annotated[str, Header(max_length=20, description="As browsers send it; wins over `after`.")] = "",
) -> Response:
    """Follow a job: what happened so far, then what happens, until it ends."""
    if last_event_id.isascii() and last_event_id.isdecimal():
        after = int(last_event_id)
    job = await state.services.jobs.get(job_id, tenant=caller.tenant)
    if job.state.final and not await state.services.jobs.events(job_id, after=after, limit=1):
        return Response(status_code=204)
    return EventStream(_events(state, job_id, after))


@router.post("/{job_id}/cancel", response_model=Job, responses=refusals(404))
async def cancel_job(job_id: str, state: State, caller: Writer) -> Response:
    """Cancel a job. A queued one is cancelled at once, a running one within a second; an ended one stays as it is."""
    return reply(await state.services.intake.cancel(job_id, tenant=caller.tenant))


@router.post("/{job_id}/retry", response_model=Job, responses=refusals(404, 409))
async def retry_job(job_id: str, state: State, caller: Writer) -> Response:
    """Give a failed or cancelled job new attempts."""
    return reply(await state.services.intake.retry(job_id, tenant=caller.tenant))


async def _events(state: ApiState, job_id: str, after: int) -> AsyncGenerator[bytes, None]:
    with state.watchers.watching(job_id, created=False):
        async with aclosing(watch(state, job_id, after=after)) as events:
            async for one in events:
                yield event(one.type, {**one.data, "attempt": one.attempt, "at": one.at}, event_id=one.seq)


def _selected(
    body: JobsSelection, caller: Caller, possible: frozenset[JobState], default: frozenset[JobState] | None = None
) -> JobFilter | None:
    """The filter that a selection means; None where no job can match (to the store, no state means every state)."""
    states = (frozenset(body.states) or default or possible) & possible
    if not states:
        return None
    return JobFilter(
        tenant=caller.tenant,
        states=states,
        kinds=frozenset(body.kinds),
        priorities=frozenset(body.priorities),
        subject=body.subject,
    )


async def _retry_all(state: ApiState, where: JobFilter) -> int:
    """One by one, since a document's version is reopened with its job."""
    changed = 0
    cursor: str | None = None
    while True:
        page = await state.services.jobs.list(where, cursor=cursor, limit=500)
        for job in page.jobs:
            try:
                await state.services.intake.retry(job.id)
                changed += 1
            except (Conflict, NotFound):  # somebody else was quicker, or its document is gone
                continue
        if (cursor := page.cursor) is None:
            return changed
