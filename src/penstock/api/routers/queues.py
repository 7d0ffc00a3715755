"""`/v1/queues`: how the queue does, by class."""

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.answers import Queues
from penstock.api.auth import Reader
from penstock.api.json_io import reply
from penstock.api.routing import StrictRoute, refusals
from penstock.api.state import State

router = APIRouter(prefix="/v1/queues", tags=["jobs"], route_class=StrictRoute)


@router.get("", response_model=Queues, responses=refusals())
async def list_queues(state: State, _: Reader) -> Response:
    """Ready, running, delayed and dead jobs, the oldest one's age, the drain rate, and waiting and running times."""
    return reply({"queues": await state.services.jobs.stats()})
