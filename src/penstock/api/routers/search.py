"""`/v1/search`: passages for a query, in one call."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.answers import SearchReply
from penstock.api.asking import SEARCH_BODY, read_search
from penstock.api.auth import Reader
from penstock.api.json_io import reply
from penstock.api.problems import CLIENT_GONE
from penstock.api.routing import BODY, StrictRoute, refusals
from penstock.api.state import State
from penstock.api.waiting import GRACE_S, failed, interactive_job, submit, too_late, wait_attended
from penstock.pipeline.requests import Kind, SearchRequest
from penstock.types import JobState

router = APIRouter(prefix="/v1/search", tags=["questions"], route_class=StrictRoute)


@router.post(
    "", response_model=SearchReply, responses=refusals(404, 409, 502, 504, 507, *BODY), openapi_extra=SEARCH_BODY
)
async def search(request: Request, state: State, caller: Reader) -> Response:
    """Find the passages that fit a query best; in a collection with an image model also the pictures that show what it
    says, or that look like the image that comes with it."""
    api = state.services.settings.api
    body, image_sha256 = await read_search(request, state, caller.tenant)
    timeout_s = min(body.timeout_s or api.max_wait_s, api.max_wait_s)
    asked = body.model_dump(include={"collection", "limit", "mode", "filter"})
    wanted = SearchRequest(**asked, query=body.query or "", image_sha256=image_sha256)
    enqueued = await submit(state, interactive_job(Kind.SEARCH, wanted, tenant=caller.tenant, timeout_s=timeout_s))
    job = await wait_attended(state, request, enqueued, timeout_s + GRACE_S)
    if job is None:
        return Response(status_code=CLIENT_GONE)
    if not job.state.final:
        raise await too_late(state, job.id, timeout_s)
    if job.state is not JobState.SUCCEEDED:
        return failed(request, job)
    return reply({"job_id": job.id, **job.result})
