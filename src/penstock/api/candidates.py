"""Which documents a request holds, each of them checked before anything is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError

from penstock.api.forms import FilePart, Form
from penstock.api.json_io import strict_json
from penstock.api.problems import FieldError, InvalidFields, status_of
from penstock.api.schemas import DocumentsUpload, Metadata, NewDocument
from penstock.api.spool import Spool
from penstock.errors import InvalidInput, TooLarge
from penstock.pipeline.intake import DEFAULT_COLLECTION
from penstock.pipeline.media import HEAD_BYTES, sniff
from penstock.pipeline.names import clean_name
from penstock.types import JSON, Priority

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


async def form_batch(form: Form, spool: Spool) -> Batch:
    """The documents of a form. Raises `InvalidInput`, for bad files one error that names them all."""
    collection, priority, metadata = form_fields(form)
    checks = [await _file_candidate(part, spool, own) for part, own in zip(form.files, metadata, strict=True)]
    return Batch(collection=collection, priority=priority, candidates=_all_good(form.files, checks))


def form_fields(form: Form) -> tuple[str, Priority, list[dict[str, JSON]]]:
    """Collection, priority, and the metadata of each file. `InvalidInput` for a form that is not as it should be."""
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
    return collection, priority, metadata


def text_batch(body: DocumentsUpload, limit_bytes: int) -> Batch:
    """The documents of a JSON body. Raises as `form_batch` does."""
    checks = [_text_candidate(document, limit_bytes) for document in body.documents]
    return Batch(collection=body.collection, priority=body.priority, candidates=_all_good(body.documents, checks))


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
