"""From a request with documents to entries in ledger and queue: read all, check all, store all, accept all.

Nothing is stored before everything was checked, so that a request with one bad file leaves nothing behind.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.auth import Caller
from penstock.api.candidates import Batch, Candidate, form_batch, text_batch
from penstock.api.forms import FormReader
from penstock.api.json_io import reply, strict_json, to_bytes
from penstock.api.routing import validated
from penstock.api.schemas import MAX_DOCUMENTS, DocumentsUpload
from penstock.api.spool import BLOCK_BYTES, Spool
from penstock.api.state import ApiState
from penstock.ledger.base import Accepted
from penstock.pipeline.intake import Upload
from penstock.types import DocumentStatus

PUTS_AT_ONCE: Final = 16


async def take_form(state: ApiState, caller: Caller, request: Request, key: str | None) -> Response:
    """Documents as files of a form."""
    api = state.services.settings.api
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        reader = FormReader(
            request.headers["content-type"], spool, max_files=MAX_DOCUMENTS, max_file_bytes=api.max_upload_bytes
        )
        form = await reader.read(request.stream())
        batch = await form_batch(form, spool)
        return await _take(state, caller, batch, spool, key)


async def take_json(state: ApiState, caller: Caller, request: Request, key: str | None) -> Response:
    """Documents as text in JSON."""
    body = validated(DocumentsUpload, strict_json(await request.body()))
    batch = text_batch(body, state.services.settings.api.max_upload_bytes)
    async with Spool(None, state.spool_limiter) as spool:
        return await _take(state, caller, batch, spool, key)


async def _take(state: ApiState, caller: Caller, batch: Batch, spool: Spool, key: str | None) -> Response:
    """Stores and accepts a batch that is good. Raises `NotFound`, `Conflict`, `Overloaded`, `StorageFull`."""
    await state.require_collection(caller.tenant, batch.collection)
    uploads = await _store(state, batch.candidates, spool)

    async def accept() -> Response:
        intake = state.services.intake
        accepted = await intake.add(caller.tenant, batch.collection, uploads, priority=batch.priority)
        state.metrics.accepted.inc(sum(one.created for one in accepted))
        return _accepted_reply(accepted)

    if key is None:
        return await accept()
    return await state.replies.once(caller.tenant, key, _fingerprint(batch, uploads), accept)


async def _store(state: ApiState, candidates: Sequence[Candidate], spool: Spool) -> list[Upload]:
    """Puts all bytes into the blob store, many at once; the result is in the order of the candidates."""
    uploads: list[Upload | None] = [None] * len(candidates)
    todo = iter(enumerate(candidates))
    errors: list[Exception] = []

    async def put_some() -> None:
        for i, candidate in todo:
            if errors:
                return
            try:
                uploads[i] = await _put(state, candidate, spool)
            except Exception as exc:  # raised again below, where the task group does not wrap it
                errors.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(min(PUTS_AT_ONCE, len(candidates))):
            group.start_soon(put_some)
    if errors:
        raise errors[0]
    return [upload for upload in uploads if upload is not None]


async def _put(state: ApiState, candidate: Candidate, spool: Spool) -> Upload:
    data: bytes | AsyncIterator[bytes]
    if candidate.data is not None:
        data = candidate.data
    elif candidate.size_bytes <= BLOCK_BYTES:
        data = await spool.read(candidate.start, candidate.size_bytes)
    else:
        data = spool.blocks(candidate.start, candidate.size_bytes)
    blob = await state.services.blobs.put(data)
    return Upload(
        name=candidate.name,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        media_type=candidate.media_type,
        metadata=candidate.metadata,
    )


def _fingerprint(batch: Batch, uploads: Sequence[Upload]) -> str:
    content = [batch.collection, batch.priority, *([up.name, up.sha256, up.metadata] for up in uploads)]
    return hashlib.blake2b(to_bytes(content), digest_size=16).hexdigest()


def _accepted_reply(accepted: Sequence[Accepted]) -> Response:
    documents = [
        {"document": one.document, "job_id": one.document.job_id, "created": one.created, "status": _status(one)}
        for one in accepted
    ]
    nothing_new = all(one["status"] == "already_indexed" for one in documents)
    return reply({"documents": documents}, 200 if nothing_new else 202)


def _status(one: Accepted) -> str:
    if one.created:
        return "accepted"
    return "already_indexed" if one.document.status is DocumentStatus.DONE else "already_pending"
