"""`/v1/collections/{name}/…`: what moves a whole collection."""

from fastapi import APIRouter
from starlette.responses import Response

from penstock.api.auth import Writer
from penstock.api.json_io import reply
from penstock.api.routing import BODY, StrictRoute, refusals
from penstock.api.schemas import CopyBody, ReindexBody
from penstock.api.state import State
from penstock.errors import InvalidInput
from penstock.ledger.batch_records import NewSource, SourceKind
from penstock.pipeline.reindexing import start_reindex
from penstock.types import Batch, Job

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


@router.post("/{name}/reindex", status_code=202, response_model=Job, responses=refusals(404, 409, *BODY))
async def reindex_collection(name: str, body: ReindexBody, state: State, caller: Writer) -> Response:
    """Rebuild its index from the ledger, also with another embedding model or in another index engine.

    Searches go on in the old index until the new one is whole, documents may arrive meanwhile, and then all searches
    switch in one moment. Answers with the job; cancelling that leaves everything as it was.
    """
    services = state.services
    models = services.settings.models.embedder_names
    if body.embedding_model is not None and body.embedding_model not in models:
        raise InvalidInput(
            f"There is no embedding model {body.embedding_model!r} here. There are: {', '.join(models)}."
        )
    if body.engine and body.engine not in services.settings.index_engines:
        known = ", ".join(services.settings.index_engines) or "none"
        raise InvalidInput(
            f"There is no index engine {body.engine!r} in the settings (index_engines). There are: {known}."
        )
    job = await start_reindex(
        services.ledger, services.jobs, caller.tenant, name, model=body.embedding_model, engine=body.engine
    )
    return reply(job, 202, {"location": f"/v1/jobs/{job.id}"})


@router.post("/{name}/copy", status_code=202, response_model=Batch, responses=refusals(404, 409, *BODY))
async def copy_collection(name: str, body: CopyBody, state: State, caller: Writer) -> Response:
    """Make a new collection with the same options and the newest version of every document, as a batch."""
    services = state.services
    original = await services.ledger.get_collection(caller.tenant, name)
    await services.ledger.create_collection(caller.tenant, body.name, original.options)
    source = NewSource(kind=SourceKind.COLLECTION, name=original.name)
    batch, _ = await services.batches.create(caller.tenant, body.name, [source])
    return reply(batch, 202, {"location": f"/v1/batches/{batch.id}"})
