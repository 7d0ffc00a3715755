"""`/v1/collections/{name}/…`: what moves a whole collection."""

from dataclasses import replace
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from penstock.api.auth import Reader, Writer
from penstock.api.batch_uploads import take_export
from penstock.api.json_io import reply
from penstock.api.routers.collections import require_sight
from penstock.api.routing import BODY, StrictRoute, refusals
from penstock.api.schemas import CopyBody, ReindexBody
from penstock.api.state import State
from penstock.errors import InvalidInput
from penstock.ledger.batch_records import NewSource, SourceKind
from penstock.pipeline.export import Exporter
from penstock.pipeline.reindexing import start_reindex
from penstock.types import Batch, Job

TAR = "application/x-tar"

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
    require_sight(body.image_model, services.settings)
    job = await start_reindex(
        services.ledger,
        services.jobs,
        caller.tenant,
        name,
        model=body.embedding_model,
        image_model=body.image_model,
        engine=body.engine,
    )
    return reply(job, 202, {"location": f"/v1/jobs/{job.id}"})


@router.get(
    "/{name}/export",
    response_class=Response,
    responses=refusals(404)
    | {200: {"description": "A tar with all documents, see `penstock.pipeline.export`.", "content": {TAR: {}}}},
)
async def export_collection(
    name: str,
    state: State,
    caller: Reader,
    chunks: Annotated[bool, Query(description="With the searchable passages, for other tools.")] = True,
) -> Response:
    """The collection as one file, which `import` takes: its options, and the newest version of every document."""
    services = state.services
    collection = await services.ledger.get_collection(caller.tenant, name)
    exporter = Exporter(services.ledger, services.blobs, collection, chunks=chunks)
    headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}.tar"}
    return StreamingResponse(exporter.stream(), media_type=TAR, headers=headers)


IMPORT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files", "name"],
                    "properties": {
                        "files": {"type": "string", "format": "binary", "description": "One export."},
                        "name": {"type": "string", "description": "Of the new collection."},
                    },
                }
            }
        },
    }
}


@router.post(
    "/import",
    status_code=202,
    response_model=Batch,
    responses=refusals(409, 507, *BODY),
    openapi_extra=IMPORT_BODY,
)
async def import_collection(request: Request, state: State, caller: Writer) -> Response:
    """Make a collection of an export, as a batch. A damaged file is refused whole: the batch fails with the reason."""
    batch = await take_export(state, caller, request)
    return reply(batch, 202, {"location": f"/v1/batches/{batch.id}"})


@router.post("/{name}/copy", status_code=202, response_model=Batch, responses=refusals(404, 409, *BODY))
async def copy_collection(name: str, body: CopyBody, state: State, caller: Writer) -> Response:
    """Make a new collection with the same options and the newest version of every document, as a batch.

    With an `image_model` that the collection had not, the pictures in its documents are found in the new one.
    """
    services = state.services
    require_sight(body.image_model, services.settings, captions=bool(body.captions))
    original = await services.ledger.get_collection(caller.tenant, name)
    given = body.model_dump(include={"image_model", "captions"}, exclude_none=True)
    await services.ledger.create_collection(caller.tenant, body.name, replace(original.options, **given))
    source = NewSource(kind=SourceKind.COLLECTION, name=original.name)
    batch, _ = await services.batches.create(caller.tenant, body.name, [source])
    return reply(batch, 202, {"location": f"/v1/batches/{batch.id}"})
