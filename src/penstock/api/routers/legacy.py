"""The older interface of existing front ends, over the same jobs as `/v1`. Nothing new belongs here."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

import penstock
from penstock.api.auth import Caller, Reader
from penstock.api.images import store_image
from penstock.api.json_io import reply
from penstock.api.routing import BODY, StrictRoute, refusals
from penstock.api.schemas import Text
from penstock.api.state import ApiState, State
from penstock.api.waiting import interactive_job, look_up, submit
from penstock.errors import InvalidInput, NotFound, TooLarge
from penstock.pipeline.intake import DEFAULT_COLLECTION
from penstock.pipeline.requests import Kind, QuestionRequest
from penstock.types import Job, JobState

router = APIRouter(tags=["older interface"], route_class=StrictRoute, deprecated=True)

TIMEOUT_S = 300.0

STATUS: Mapping[JobState, str] = {
    JobState.QUEUED: "queued",
    JobState.RUNNING: "started",
    JobState.SUCCEEDED: "finished",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


class _Tolerant(BaseModel):
    """Old clients send fields that were never read; these are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class AnalyzeImage(_Tolerant):
    query: Annotated[Text, Field(min_length=1)]
    image_base64: str | None = None
    image_url: str | None = None


class Retrieve(_Tolerant):
    query: Annotated[Text, Field(min_length=1)]


class Task(BaseModel):
    task_id: str
    status: Literal["queued", "started", "finished", "failed", "cancelled"]


class TaskResult(Task):
    progress: int = Field(ge=0, le=100)
    result: dict[str, Any] | None
    error: str | None


class QueueCounts(BaseModel):
    queued: int
    started: int
    failed: int
    workers: int


class LegacyHealth(BaseModel):
    status: Literal["healthy", "degraded"]
    version: str
    workers: int


@router.post("/api/async/analyze-image", status_code=202, response_model=Task, responses=refusals(*BODY, 507))
async def analyze_image(body: AnalyzeImage, state: State, caller: Reader) -> Response:
    """Ask about an image. Where no model that takes pictures is configured, the answer says that it was not read."""
    if body.image_base64 and body.image_url:
        raise InvalidInput("There are both image_base64 and image_url. Send one of them.")
    image = body.image_base64 or body.image_url
    if not image:
        raise InvalidInput("image_base64 (or image_url) is missing.")
    _check_length(state, body.query)
    return await _ask(state, caller, body.query, image_sha256=await store_image(state, image))


@router.post("/retrieve", status_code=202, response_model=Task, responses=refusals(*BODY))
async def retrieve(body: Retrieve, state: State, caller: Reader) -> Response:
    """Ask a question."""
    _check_length(state, body.query)
    return await _ask(state, caller, body.query)


@router.get("/api/async/task/{task_id}", response_model=TaskResult, responses=refusals(404))
async def get_task(task_id: str, state: State, caller: Reader) -> Response:
    """A question's state and answer."""
    return reply(_task(await _question(state, caller, task_id)))


@router.get("/result/{task_id}", response_model=TaskResult, responses=refusals(404))
async def get_result(task_id: str, state: State, caller: Reader) -> Response:
    """The same under its other address."""
    return reply(_task(await _question(state, caller, task_id)))


@router.delete("/api/async/task/{task_id}", response_model=TaskResult, responses=refusals(404))
async def cancel_task(task_id: str, state: State, caller: Reader) -> Response:
    """Cancel a question."""
    await _question(state, caller, task_id)
    return reply(_task(await state.services.intake.cancel(task_id, tenant=caller.tenant)))


@router.get("/api/queue/stats", response_model=QueueCounts, responses=refusals())
async def queue_stats(state: State, _: Reader) -> Response:
    """Counts over all classes."""
    queues = await state.services.jobs.stats()
    workers = await state.services.jobs.workers()
    return reply(
        {
            "queued": sum(queue.ready + queue.delayed for queue in queues),
            "started": sum(queue.running for queue in queues),
            "failed": sum(queue.dead for queue in queues),
            "workers": len(workers),
        }
    )


@router.get("/api/health", response_model=LegacyHealth, responses=refusals())
async def legacy_health(state: State, _: Reader) -> Response:
    """Whether a worker is ready."""
    workers = await state.services.jobs.workers()
    ready = sum(worker.ready for worker in workers)
    status = "healthy" if ready else "degraded"
    return reply({"status": status, "version": penstock.__version__, "workers": ready})


def _check_length(state: ApiState, query: str) -> None:
    most = state.services.settings.api.max_question_chars
    if len(query) > most:
        raise TooLarge(f"The query has {len(query):,} characters; at most {most:,} are taken.")


async def _ask(state: ApiState, caller: Caller, query: str, *, image_sha256: str | None = None) -> Response:
    wanted = QuestionRequest(collection=DEFAULT_COLLECTION, question=query, image_sha256=image_sha256)
    job = interactive_job(Kind.QUESTION, wanted, tenant=caller.tenant, timeout_s=TIMEOUT_S)
    enqueued = await submit(state, job)
    state.promises.keep(enqueued.job)
    return reply({"task_id": enqueued.job.id, "status": STATUS[enqueued.job.state]}, 202)


async def _question(state: ApiState, caller: Caller, task_id: str) -> Job:
    """Only questions are tasks of this interface: a document's job is not shown, or cancelled, through it."""
    job = await look_up(state, task_id, caller.tenant)
    if job.kind != Kind.QUESTION:
        raise NotFound(f"There is no task {task_id[:100]!r}.")
    return job


def _task(job: Job) -> Mapping[str, Any]:
    return {
        "task_id": job.id,
        "status": STATUS[job.state],
        "progress": _percent(job),
        "result": job.result,
        "error": job.error.message if job.error else None,
    }


def _percent(job: Job) -> int:
    if job.state.final:
        return 100
    progress = job.progress
    return min(99, 100 * progress.done // progress.total) if progress and progress.total else 0
