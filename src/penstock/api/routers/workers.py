"""`/v1/workers`: who does the work."""

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.answers import Workers
from penstock.api.auth import Reader
from penstock.api.json_io import reply
from penstock.api.routing import StrictRoute, refusals
from penstock.api.state import State

router = APIRouter(prefix="/v1/workers", tags=["jobs"], route_class=StrictRoute)


@router.get("", response_model=Workers, responses=refusals())
async def list_workers(state: State, _: Reader) -> Response:
    """The workers seen lately: what they run, their models, their memory, and whether they are ready."""
    return reply({"workers": await state.services.jobs.workers()})
