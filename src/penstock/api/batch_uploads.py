"""From a request for a batch to its sources: files and archives are stored, URLs and folders noted; a job does more.

Unlike an upload of documents, a file that cannot be taken does not refuse the others: it is told with the batch.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import msgspec
from starlette.requests import Request

from penstock.api.auth import Caller
from penstock.api.candidates import form_fields
from penstock.api.forms import FilePart, FormReader
from penstock.api.json_io import strict_json, to_bytes
from penstock.api.routers.collections import require_models
from penstock.api.routing import media_type_of, validated
from penstock.api.schemas import MAX_DOCUMENTS, BatchUpload, NewCollection
from penstock.api.spool import Spool
from penstock.api.state import ApiState
from penstock.errors import InvalidInput, UnsupportedMedia
from penstock.ledger.batch_records import NewSource, SourceKind
from penstock.pipeline.export import read_manifest
from penstock.pipeline.folders import allowed_folder
from penstock.pipeline.media import HEAD_BYTES, archive_kind, sniff
from penstock.pipeline.names import clean_name, shown
from penstock.types import JSON, Batch, Priority

PUTS_AT_ONCE: Final = 16


async def take_form(state: ApiState, caller: Caller, request: Request, key: str | None) -> tuple[Batch, bool]:
    """A batch of files and archives, and whether it is new."""
    api = state.services.settings.api
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        reader = FormReader(
            request.headers["content-type"], spool, max_files=MAX_DOCUMENTS, max_file_bytes=api.max_upload_bytes
        )
        form = await reader.read(request.stream())
        collection, priority, metadata = form_fields(form)
        await state.require_collection(caller.tenant, collection)
        sources = await _stored(state, form.files, metadata, spool)
    return await _create(state, caller, collection, priority, sources, key)


async def take_json(state: ApiState, caller: Caller, request: Request, key: str | None) -> tuple[Batch, bool]:
    """A batch of URLs and of a folder of the server, and whether it is new. `Forbidden` for a folder."""
    body = validated(BatchUpload, strict_json(await request.body()))
    spec = {"metadata": body.metadata}
    sources = [NewSource(kind=SourceKind.URL, name=url, spec=spec) for url in dict.fromkeys(body.urls)]
    if body.folder is not None:
        folder = allowed_folder(body.folder, state.services.settings.api.allowed_folders)
        patterns = {"include": body.include, "exclude": body.exclude}
        sources.append(NewSource(kind=SourceKind.FOLDER, name=str(folder), spec=spec | patterns))
    return await _create(state, caller, body.collection, body.priority, sources, key)


async def take_export(state: ApiState, caller: Caller, request: Request) -> Batch:
    """A new collection that an export fills. `InvalidInput` for what is none, `Conflict` when the name is taken."""
    if media_type_of(request) != "multipart/form-data":
        raise UnsupportedMedia("An export is sent as a file of a form (multipart/form-data).")
    services = state.services
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        limit = services.settings.api.max_request_bytes
        form = await FormReader(request.headers["content-type"], spool, max_files=1, max_file_bytes=limit).read(
            request.stream()
        )
        if len(form.files) != 1 or form.fields.keys() != {"name"}:
            raise InvalidInput("The form holds one file, the export, and the field 'name', and nothing else.")
        [part] = form.files
        head = await spool.read(part.start, min(part.size_bytes, HEAD_BYTES))
        options = msgspec.to_builtins(read_manifest(head).options)
        wanted = validated(NewCollection, {"name": form.fields["name"], **options})
        require_models(wanted, services.settings)
        collection = await services.ledger.create_collection(caller.tenant, wanted.name, wanted.options())
        blob = await services.blobs.put(spool.blocks(part.start, part.size_bytes))
    source = NewSource(kind=SourceKind.EXPORT, name=shown(part.name), sha256=blob.sha256)
    batch, _ = await services.batches.create(caller.tenant, collection.name, [source])
    return batch


async def _create(
    state: ApiState, caller: Caller, collection: str, priority: Priority, sources: Sequence[NewSource], key: str | None
) -> tuple[Batch, bool]:
    content = [collection, priority, *([source.kind, source.name, source.sha256, source.spec] for source in sources)]
    return await state.services.batches.create(
        caller.tenant,
        collection,
        sources,
        priority=priority,
        idempotency_key=key,
        fingerprint=hashlib.blake2b(to_bytes(content), digest_size=16).hexdigest(),
    )


async def _stored(
    state: ApiState, parts: Sequence[FilePart], metadata: Sequence[Mapping[str, JSON]], spool: Spool
) -> list[NewSource]:
    """The files' sources in order, their bytes in the blob store."""
    sources: dict[int, NewSource] = {}
    errors: list[Exception] = []
    todo = iter(enumerate(zip(parts, metadata, strict=True)))

    async def some() -> None:
        for number, (part, own) in todo:
            if errors:
                return
            try:
                sources[number] = await _source(state, part, own, spool)
            except Exception as exc:  # raised again below, where the task group does not wrap it
                errors.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(PUTS_AT_ONCE):
            group.start_soon(some)
    if errors:
        raise errors[0]
    return [sources[number] for number in range(len(parts))]


async def _source(state: ApiState, part: FilePart, metadata: Mapping[str, JSON], spool: Spool) -> NewSource:
    head = await spool.read(part.start, min(part.size_bytes, HEAD_BYTES))
    spec: dict[str, JSON] = {"metadata": metadata, "size_bytes": part.size_bytes}
    try:
        name = clean_name(part.name)
        archive = archive_kind(name, head)
        if not archive:
            spec["media_type"] = sniff(name, head, part.declared)
    except InvalidInput as exc:
        problem = {"code": exc.code, "message": exc.message}
        return NewSource(kind=SourceKind.FILE, name=shown(part.name), spec={"error": problem})
    data = head if part.size_bytes <= len(head) else spool.blocks(part.start, part.size_bytes)
    blob = await state.services.blobs.put(data)
    kind = SourceKind.ARCHIVE if archive else SourceKind.FILE
    return NewSource(kind=kind, name=name, sha256=blob.sha256, spec=spec)
