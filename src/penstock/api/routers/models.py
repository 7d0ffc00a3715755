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
    """Embedding models, rerankers and image embedders by the names that collections use, then the language model and
    the one that takes pictures, where they are configured."""
    settings = state.services.settings
    workers = await state.services.jobs.workers()
    entries = catalogue(settings.models, settings.generator, settings.vision)
    models = [_described(entry, workers) for entry in entries]
    return reply(Models(data=models).model_dump(mode="json"))


def _described(entry: ModelEntry, workers: Sequence[WorkerInfo]) -> Model:
    held = entry.held_by(workers)
    return Model(
        id=entry.name,
        kind=entry.kind,
        engine=entry.engine,
        model=entry.shown,
        dimensions=held.dimensions if held else entry.dimensions,
        device=held.device if held else "" if entry.local else "remote",
        memory_bytes=held.memory_bytes if held else 0,
        loaded=held is not None,
        default=entry.default,
        preloaded=entry.preloaded,
        workers=sum(worker.ready and entry.key in worker.models for worker in workers),
    )
