"""`/v1/collections`: named sets of documents."""

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.answers import Collections
from penstock.api.auth import Reader, Writer
from penstock.api.json_io import reply
from penstock.api.routing import BODY, StrictRoute, refusals
from penstock.api.schemas import NewCollection
from penstock.api.state import State
from penstock.errors import InvalidInput
from penstock.models.options import NO_RERANKER
from penstock.settings import Settings
from penstock.types import Collection

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


@router.post("", status_code=201, response_model=Collection, responses=refusals(409, *BODY))
async def create_collection(body: NewCollection, state: State, caller: Writer) -> Response:
    """Make a collection. Its models are named as `/v1/models` lists them."""
    require_models(body, state.services.settings)
    collection = await state.services.ledger.create_collection(caller.tenant, body.name, body.options())
    return reply(collection, 201)


def require_models(body: NewCollection, settings: Settings) -> None:
    """`InvalidInput` for a model that the settings do not name: a caller must not make workers load what they like."""
    options = settings.models
    if body.embedding_model not in options.embedder_names:
        names = ", ".join(options.embedder_names)
        raise InvalidInput(f"There is no embedding model {body.embedding_model!r} here. There are: {names}.")
    if body.reranker not in {None, NO_RERANKER, *options.rerankers}:
        names = ", ".join((*options.rerankers, NO_RERANKER))
        raise InvalidInput(f"There is no reranker {body.reranker!r} here. There are: {names}.")
    require_sight(body.image_model, settings, captions=body.captions)


def require_sight(image_model: str | None, settings: Settings, *, captions: bool = False) -> None:
    """`InvalidInput` for an image embedder that the settings do not name, or captions that nobody can write."""
    known = settings.models.image_embedders
    if image_model is not None and image_model not in known:
        names = ", ".join(known) or "none (PENSTOCK_MODELS__IMAGE_EMBEDDERS)"
        raise InvalidInput(f"There is no image embedder {image_model!r} here. There are: {names}.")
    if captions and not settings.sees:
        raise InvalidInput("captions: no model that takes pictures is configured here (PENSTOCK_VISION__PRESET).")


@router.get("", response_model=Collections, responses=refusals())
async def list_collections(state: State, caller: Reader) -> Response:
    """All collections, by name, with the counts of what is searchable in them."""
    return reply({"collections": await state.services.ledger.list_collections(caller.tenant)})


@router.get("/{name}", response_model=Collection, responses=refusals(404))
async def get_collection(name: str, state: State, caller: Reader) -> Response:
    """One collection."""
    return reply(await state.services.ledger.get_collection(caller.tenant, name))


@router.delete("/{name}", response_model=Collection, responses=refusals(404))
async def delete_collection(name: str, state: State, caller: Writer) -> Response:
    """Delete a collection with all its documents. Answers with the collection as it was last."""
    deleted = await state.services.ledger.delete_collection(caller.tenant, name)
    state.collections.forget((caller.tenant, name))
    return reply(deleted)
