"""`/v1/questions`: answers with citations; at once, later, or as they are written."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.answers import QuestionReply
from penstock.api.asking import REQUEST_BODY, read_question
from penstock.api.auth import Caller, Reader
from penstock.api.idempotency import IdempotencyKey
from penstock.api.json_io import reply
from penstock.api.problems import CLIENT_GONE
from penstock.api.promises import lost
from penstock.api.routing import BODY, EVENTS, StrictRoute, refusals
from penstock.api.schemas import QuestionBody
from penstock.api.sse import EventStream, event
from penstock.api.state import ApiState, State
from penstock.api.waiting import abandon, failed, interactive_job, submit, wait_attended, watch
from penstock.errors import NotFound
from penstock.jobs.base import Enqueued
from penstock.pipeline.requests import Kind, QuestionRequest
from penstock.types import Job, JobState

router = APIRouter(prefix="/v1/questions", tags=["questions"], route_class=StrictRoute)

TIMEOUT_S = 300.0
"""Of a question whose caller gives none."""


@router.post(
    "",
    status_code=202,
    response_model=QuestionReply,
    responses=refusals(404, 409, 502, 504, 507, *BODY)
    | {
        200: {
            "model": QuestionReply,
            "description": "The answer; with `stream`, events: `progress`, `delta` (`text`), at the end `answer` or "
            "`error`. Every event has the id that `/v1/jobs/{id}/events` resumes from.",
            "content": EVENTS,
        },
        202: {"description": "Accepted. The answer will be the result of the job at `Location`."},
    },
    openapi_extra=REQUEST_BODY,
)
async def ask(request: Request, state: State, caller: Reader, idempotency_key: IdempotencyKey = None) -> Response:
    """Ask a question, which may come with an image. Answers 202 at once; with `wait_s` the answer comes in the same
    call, if it is ready in time.

    With `stream` the answer comes as events, in the same call, or, when the client accepts `application/json` only, as
    events of the job. A question that is waited for or streamed is cancelled when its client leaves before the answer.
    """
    body, image_sha256 = await read_question(request, state, caller.tenant)
    enqueued = await _enqueue(body, image_sha256, state, caller, idempotency_key)
    location = {"location": f"{request.scope.get('root_path', '')}/v1/jobs/{enqueued.job.id}"}
    if body.stream and _takes_events(request):
        return EventStream(_events(state, enqueued), headers=location)
    job: Job | None = enqueued.job
    if body.wait_s:
        wait_s = min(body.wait_s, state.services.settings.api.max_wait_s)
        job = await wait_attended(state, request, enqueued, wait_s)
    else:
        state.watchers.keep(enqueued.job.id)
    if job is None:
        return Response(status_code=CLIENT_GONE)
    if job.state.final and job.state is not JobState.SUCCEEDED:
        return failed(request, job)
    if not job.state.final:
        state.promises.keep(job)
    return reply(_reply(job), 200 if job.state.final else 202, location)


async def _enqueue(
    body: QuestionBody, image_sha256: str | None, state: ApiState, caller: Caller, key: str | None
) -> Enqueued:
    asked = body.model_dump(include={"collection", "question", "limit", "filter", "stream"})
    wanted = QuestionRequest(**asked, image_sha256=image_sha256)
    job = interactive_job(
        Kind.QUESTION, wanted, tenant=caller.tenant, timeout_s=body.timeout_s or TIMEOUT_S, idempotency_key=key
    )
    return await submit(state, job)


async def _events(state: ApiState, enqueued: Enqueued) -> AsyncGenerator[bytes, None]:
    """Progress and text as they come, then the answer or the error. Leaving early abandons the job."""
    job_id, last, ended = enqueued.job.id, 0, False
    with state.watchers.watching(job_id, created=enqueued.created):
        try:
            with suppress(NotFound):
                async with aclosing(watch(state, job_id)) as events:
                    async for one in events:
                        last = one.seq
                        if one.type != "state":
                            yield event(one.type, {**one.data, "attempt": one.attempt}, event_id=one.seq)
            ended = True
        finally:
            if not ended:
                await abandon(state, job_id)
    try:
        job = await state.services.jobs.get(job_id)
    except NotFound:
        job = lost(enqueued.job)
    yield event("answer" if job.state is JobState.SUCCEEDED else "error", _reply(job), event_id=last)


def _takes_events(request: Request) -> bool:
    accepted = request.headers.get("accept", "*/*")
    return "text/event-stream" in accepted or "application/json" not in accepted


def _reply(job: Job) -> Mapping[str, Any]:
    return {"job_id": job.id, "state": job.state, "answer": job.result, "error": job.error}
