"""`/v1/batches`: many documents under one id, from files, archives, URLs or a folder of the server."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.answers import BatchChanged, Batches, BatchItems
from penstock.api.auth import Reader, Writer
from penstock.api.batch_uploads import take_form, take_json
from penstock.api.idempotency import IdempotencyKey
from penstock.api.json_io import reply
from penstock.api.routing import BODY, StrictRoute, media_type_of, refusals, require_json
from penstock.api.schemas import BatchUpload
from penstock.api.state import State
from penstock.types import Batch, BatchItemState

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]
Few = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=512, description="From the page before.")]

FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "Documents, and archives (zip, tar, tar.gz) of documents.",
        },
        "collection": {"type": "string", "default": "default"},
        "metadata": {"type": "string", "description": "A JSON object for all documents, or a list with one a file."},
        "priority": {"type": "string", "enum": ["interactive", "normal", "bulk"], "default": "bulk"},
    },
}
BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM_SCHEMA},
            "application/json": {"schema": {"$ref": f"#/components/schemas/{BatchUpload.__name__}"}},
        },
    }
}


@router.post(
    "",
    status_code=202,
    response_model=Batch,
    responses=refusals(404, 409, 507, *BODY)
    | {200: {"model": Batch, "description": "This Idempotency-Key made this batch before."}},
    openapi_extra=BATCH_BODY,
)
async def create_batch(
    request: Request, state: State, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add many documents: files and archives as `multipart/form-data`, or a list of URLs, or a folder of the server, as
    JSON.

    A 202 means that it is on disk and will be gathered: archives unpacked, URLs fetched, the folder walked. A file that
    cannot be taken is told with its reason, and the others go on.
    """
    if media_type_of(request) == "multipart/form-data":
        batch, created = await take_form(state, caller, request, idempotency_key)
    else:
        require_json(request)
        batch, created = await take_json(state, caller, request, idempotency_key)
    return reply(batch, 202 if created else 200, {"location": f"/v1/batches/{batch.id}"})


@router.get("", response_model=Batches, responses=refusals())
async def list_batches(state: State, caller: Reader, cursor: Cursor = None, limit: Few = 20) -> Response:
    """Batches, newest first."""
    return reply(await state.services.ledger.batches.list(caller.tenant, cursor=cursor, limit=limit))


@router.get("/{batch_id}", response_model=Batch, responses=refusals(404))
async def get_batch(batch_id: str, state: State, caller: Reader) -> Response:
    """One batch, with the number of its documents by state."""
    return reply(await state.services.ledger.batches.get(caller.tenant, batch_id))


@router.get("/{batch_id}/items", response_model=BatchItems, responses=refusals(404))
async def list_items(
    batch_id: str,
    state: State,
    caller: Reader,
    states: Annotated[list[BatchItemState] | None, Query(alias="state", description="One or more.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """What became of each file, in the order in which they were gathered, and why it failed or was refused."""
    page = await state.services.ledger.batches.items(
        caller.tenant, batch_id, frozenset(states or ()), cursor=cursor, limit=limit
    )
    return reply(page)


@router.post("/{batch_id}/cancel", response_model=Batch, responses=refusals(404))
async def cancel_batch(batch_id: str, state: State, caller: Writer) -> Response:
    """Cancel all that is unfinished. What is searchable already stays."""
    return reply(await state.services.batches.cancel(caller.tenant, batch_id))


@router.post("/{batch_id}/retry", response_model=BatchChanged, responses=refusals(404))
async def retry_batch(batch_id: str, state: State, caller: Writer) -> Response:
    """Ingest failed and cancelled documents again, fetch failed URLs again, and go on gathering where that failed."""
    retried = await state.services.batches.retry(caller.tenant, batch_id)
    batch = await state.services.ledger.batches.get(caller.tenant, batch_id)
    return reply({"batch": batch, "documents": retried.documents, "gathering": retried.gathering})
