"""`/v1/models`: what collections may be made with. Told by the settings and the workers: no model is loaded here."""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.answers import Model, Models
from penstock.api.auth import Reader
from penstock.api.json_io import reply
from penstock.api.routing import StrictRoute, refusals
from penstock.api.state import State
from penstock.models.catalogue import ModelEntry, catalogue
from penstock.types import WorkerInfo

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)


@router.get("", response_model=Models, responses=refusals())
async def list_models(state: State, _: Reader) -> Response:
    """Embedding models and rerankers by the names that collections use."""
    workers = await state.services.jobs.workers()
    models = [_described(entry, workers) for entry in catalogue(state.services.settings.models)]
    return reply(Models(data=models).model_dump(mode="json"))


def _described(entry: ModelEntry, workers: Sequence[WorkerInfo]) -> Model:
    return Model(
        id=entry.name,
        kind="rerank" if entry.kind == "rerank" else "embedding",
        engine=entry.engine,
        model=entry.shown,
        dimensions=entry.dimensions,
        default=entry.default,
        preloaded=entry.preloaded,
        workers=sum(worker.ready and entry.key in worker.models for worker in workers),
    )
