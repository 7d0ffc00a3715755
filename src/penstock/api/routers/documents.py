"""`/v1/documents`: uploads, what became of them, and their passages."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from penstock.api.answers import AcceptedDocuments, Chunks, Documents, DocumentsDeleted, DocumentWithJob
from penstock.api.auth import Reader, Writer
from penstock.api.idempotency import IdempotencyKey
from penstock.api.json_io import reply
from penstock.api.routing import BODY, StrictRoute, media_type_of, refusals, require_json
from penstock.api.schemas import DocumentsSelection, DocumentsUpload
from penstock.api.state import ApiState, State
from penstock.api.uploads import take_form, take_json
from penstock.errors import InvalidInput, NotFound
from penstock.types import Document, DocumentStatus, Job

router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=StrictRoute)

Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=512, description="From the page before.")]

FORM_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
        "collection": {"type": "string", "default": "default"},
        "metadata": {"type": "string", "description": "A JSON object for all files, or a list with one a file."},
        "priority": {"type": "string", "enum": ["interactive", "normal", "bulk"], "default": "bulk"},
    },
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM_SCHEMA},
            "application/json": {"schema": {"$ref": f"#/components/schemas/{DocumentsUpload.__name__}"}},
        },
    }
}


@router.post(
    "",
    status_code=202,
    response_model=AcceptedDocuments,
    responses=refusals(404, 409, 507, *BODY)
    | {200: {"model": AcceptedDocuments, "description": "Nothing new: all of it is indexed already."}},
    openapi_extra=UPLOAD_BODY,
)
async def add_documents(
    request: Request, state: State, caller: Writer, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add documents: files as `multipart/form-data`, or text as JSON.

    A 202 means that they are on disk and will be indexed. All of a request is taken, or, when something in it is
    wrong, nothing. The same name in the same collection is the same document: a new version of it.
    """
    if media_type_of(request) == "multipart/form-data":
        return await take_form(state, caller, request, idempotency_key)
    require_json(request)
    return await take_json(state, caller, request, idempotency_key)


@router.get("", response_model=Documents, responses=refusals(404))
async def list_documents(
    state: State,
    caller: Reader,
    collection: Annotated[str | None, Query(max_length=64)] = None,
    status: Annotated[list[DocumentStatus] | None, Query(description="One or more.")] = None,
    name: Annotated[str | None, Query(max_length=1024, description="Exactly this name.")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """Documents, newest first."""
    page = await state.services.ledger.list_documents(
        caller.tenant, collection, frozenset(status or ()), name=name, cursor=cursor, limit=limit
    )
    return reply(page)


@router.get("/{document_id}", response_model=DocumentWithJob, responses=refusals(404))
async def get_document(document_id: str, state: State, caller: Reader) -> Response:
    """One document, and how far its job is."""
    document = await state.services.ledger.get_document(caller.tenant, document_id)
    return reply({"document": document, "job": await _job_of(state, document)})


@router.get("/{document_id}/chunks", response_model=Chunks, responses=refusals(404))
async def list_chunks(
    document_id: str, state: State, caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    """The searchable passages of a document, in order."""
    after = _position(cursor)
    chunks = await state.services.ledger.list_chunks(caller.tenant, document_id, after=after, limit=limit)
    more = len(chunks) == limit
    return reply({"chunks": chunks, "cursor": str(chunks[-1].position) if more else None})


@router.get(
    "/{document_id}/content",
    response_class=Response,
    responses=refusals(404) | {200: {"description": "The bytes as they were uploaded.", "content": {"*/*": {}}}},
)
async def get_content(document_id: str, state: State, caller: Reader) -> Response:
    """The newest version as it was uploaded. A browser saves it and never shows it."""
    document = await state.services.ledger.get_document(caller.tenant, document_id)
    blocks = state.services.blobs.blocks(document.sha256)
    first = await anext(blocks, b"")  # what is missing is told before the answer begins
    file_name = quote(document.name.rpartition("/")[2], safe="")
    headers = {
        "content-disposition": f"attachment; filename*=utf-8''{file_name}",
        "content-length": str(document.size_bytes),
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return StreamingResponse(_joined(first, blocks), headers=headers, media_type=document.media_type)


@router.post("/delete", response_model=DocumentsDeleted, responses=refusals(404, *BODY))
async def delete_documents(body: DocumentsSelection, state: State, caller: Writer) -> Response:
    """Delete every document of a collection that matches. From now on they are not found by anyone."""
    await state.require_collection(caller.tenant, body.collection)
    matched, deleted = await state.services.intake.delete_matching(
        caller.tenant, body.collection, body.filter, frozenset(body.statuses), dry_run=body.dry_run
    )
    return reply({"matched": matched, "deleted": deleted})


@router.delete("/{document_id}", response_model=Document, responses=refusals(404))
async def delete_document(document_id: str, state: State, caller: Writer) -> Response:
    """Delete a document. From now on it is not found by anyone; its running job is cancelled."""
    return reply(await state.services.intake.delete(caller.tenant, document_id))


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for block in rest:
            yield block


async def _job_of(state: ApiState, document: Document) -> Job | None:
    try:
        return await state.services.jobs.get(document.job_id, tenant=document.tenant)
    except NotFound:
        return None


def _position(cursor: str | None) -> int:
    if cursor is None:
        return -1
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise InvalidInput("The cursor is not one that an earlier page gave.")
    return int(cursor)
