"""From a request with documents to entries in ledger and queue: read, check all, store all, accept all.

Nothing is stored before everything was checked, so that a request with one bad file leaves nothing behind.
"""

import hashlib
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.auth import Caller
from penstock.api.forms import FilePart, Form, FormReader
from penstock.api.json_io import reply, strict_json, to_bytes
from penstock.api.problems import FieldError, InvalidFields, status_of
from penstock.api.schemas import MAX_DOCUMENTS, DocumentsUpload, Metadata, NewDocument
from penstock.api.spool import BLOCK_BYTES, Spool
from penstock.api.state import ApiState
from penstock.errors import InvalidInput, TooLarge
from penstock.ledger.base import Accepted
from penstock.pipeline.intake import DEFAULT_COLLECTION, Upload
from penstock.pipeline.media import HEAD_BYTES, sniff
from penstock.types import JSON, DocumentStatus, Priority

PUTS_AT_ONCE: Final = 16
NAME_CHARS: Final = 1024
_SEPARATORS: Final = re.compile(r"[\\/]+")
_METADATA: Final[TypeAdapter[dict[str, JSON] | list[dict[str, JSON]]]] = TypeAdapter(Metadata | list[Metadata])


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document that passed all checks. Its bytes are `data`, or a range of the spool."""

    name: str
    media_type: str
    metadata: Mapping[str, JSON]
    data: bytes | None = None
    start: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    collection: str
    priority: Priority
    candidates: Sequence[Candidate]


async def take_form(state: ApiState, caller: Caller, request: Request, key: str | None) -> Response:
    """Documents as files of a form."""
    api = state.services.settings.api
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        reader = FormReader(
            request.headers["content-type"], spool, max_files=MAX_DOCUMENTS, max_file_bytes=api.max_upload_bytes
        )
        form = await reader.read(request.stream())
        batch = await _form_batch(form, spool)
        return await _take(state, caller, batch, spool, key)


async def take_json(state: ApiState, caller: Caller, request: Request, key: str | None) -> Response:
    """Documents as text in JSON."""
    try:
        body = DocumentsUpload.model_validate(strict_json(await request.body()))
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in errors]) from exc
    limit = state.services.settings.api.max_upload_bytes
    checks = [_text_candidate(document, limit) for document in body.documents]
    batch = Batch(collection=body.collection, priority=body.priority, candidates=_all_good(body.documents, checks))
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


async def _form_batch(form: Form, spool: Spool) -> Batch:
    fields = dict(form.fields)
    collection = fields.pop("collection", DEFAULT_COLLECTION)
    priority = _priority(fields.pop("priority", Priority.BULK))
    metadata = _form_metadata(fields.pop("metadata", "{}"), len(form.files))
    if fields:
        raise InvalidInput(
            f"Unknown form field {next(iter(fields))[:50]!r}: use files, collection, metadata, priority."
        )
    if strange := [part.field_name for part in form.files if part.field_name != "files"]:
        raise InvalidInput(f"Files belong into the form field 'files', not {strange[0][:50]!r}.")
    if not form.files:
        raise InvalidInput("The form holds no file. Send one or more in the form field 'files'.")
    checks = [await _file_candidate(part, spool, own) for part, own in zip(form.files, metadata, strict=True)]
    return Batch(collection=collection, priority=priority, candidates=_all_good(form.files, checks))


async def _file_candidate(part: FilePart, spool: Spool, metadata: Mapping[str, JSON]) -> Candidate | InvalidInput:
    try:
        name = clean_name(part.name)
        head = await spool.read(part.start, min(part.size_bytes, HEAD_BYTES))
        return Candidate(
            name=name,
            media_type=sniff(name, head, part.declared),
            metadata=metadata,
            start=part.start,
            size_bytes=part.size_bytes,
        )
    except InvalidInput as exc:
        return exc


def _text_candidate(document: NewDocument, limit: int) -> Candidate | InvalidInput:
    data = document.text.encode()
    if len(data) > limit:
        return TooLarge(f"The document {document.name[:100]!r} is larger than {limit:,} bytes.")
    try:
        name = clean_name(document.name)
    except InvalidInput as exc:
        return exc
    return Candidate(name=name, media_type=document.media_type, metadata=document.metadata, data=data)


def _all_good(sources: Sequence[FilePart | NewDocument], checks: Sequence[Candidate | InvalidInput]) -> list[Candidate]:
    """The candidates, or one error that names every bad one (the status is the first one's)."""
    bad = [(i, check) for i, check in enumerate(checks) if isinstance(check, InvalidInput)]
    if not bad:
        return [check for check in checks if isinstance(check, Candidate)]
    errors = [
        FieldError(loc=["body", i, sources[i].name[:200]], detail=error.message, code=error.code)
        for i, error in bad[:100]
    ]
    first = bad[0][1]
    more = f" ({len(bad)} of {len(checks)} documents were refused, and none was stored.)" if len(checks) > 1 else ""
    raise InvalidFields(first.message + more, errors, code=first.code, status=status_of(first))


def clean_name(name: str) -> str:
    """A document's name, a mere label: a path without what could lead anywhere else. `InvalidInput` for the rest."""
    cleaned = "/".join(part for part in _SEPARATORS.split(name) if part not in {"", ".", ".."})
    if not 0 < len(cleaned) <= NAME_CHARS:
        raise InvalidInput(f"A document's name has 1 to {NAME_CHARS:,} characters, not {len(cleaned):,}.")
    if any(unicodedata.category(char) in {"Cc", "Cs"} or unicodedata.bidirectional(char) in _TURNS for char in cleaned):
        raise InvalidInput("A document's name must not hold control characters or change the direction of text.")
    return cleaned


_TURNS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Characters that make `exe.fdp` read like `pdf.exe`."""


def _priority(text: str) -> Priority:
    try:
        return Priority(text)
    except ValueError as exc:
        raise InvalidInput(f"The priority is one of {', '.join(Priority)}, not {text[:50]!r}.") from exc


def _form_metadata(text: str, files: int) -> list[dict[str, JSON]]:
    """One object for all files, or a list with one for each."""
    try:
        metadata = _METADATA.validate_python(strict_json(text.encode()))
    except ValidationError as exc:
        raise InvalidInput(
            f"The field 'metadata' is a JSON object, or a list with one object a file: {exc.errors()[0]['msg']}"
        ) from exc
    if isinstance(metadata, dict):
        return [metadata] * files
    if len(metadata) != files:
        raise InvalidInput(f"The field 'metadata' has {len(metadata)} objects for {files} files.")
    return metadata


def _fingerprint(batch: Batch, uploads: Sequence[Upload]) -> bytes:
    content = [batch.collection, batch.priority, *([up.name, up.sha256, up.metadata] for up in uploads)]
    return hashlib.blake2b(to_bytes(content), digest_size=16).digest()


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
