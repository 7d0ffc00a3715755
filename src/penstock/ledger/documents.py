"""Operations on documents. Each takes a connection inside a transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, insert, literal, select, update

from penstock.errors import InvalidInput, NotFound
from penstock.ids import new_id
from penstock.ledger import collections
from penstock.ledger.base import Accepted, DocumentPage, NewVersion
from penstock.ledger.names import document_name, from_json, metadata_of, storable, to_json
from penstock.ledger.schema import Purge, documents, versions
from penstock.ledger.schema import collections as collection_table
from penstock.types import Collection, Document, DocumentStatus, Failure

_NAMES_A_QUERY = 500
_SAME_BYTES_WILL_DO = frozenset({DocumentStatus.PENDING, DocumentStatus.DONE})

_ALL = (
    select(
        documents,
        collection_table.c.name.label("collection"),
        versions.c.sha256,
        versions.c.size_bytes,
        versions.c.media_type,
        versions.c.metadata,
        versions.c.job_id,
        versions.c.pages,
        versions.c.chunks,
        versions.c.error,
        versions.c.updated_at,
    )
    .join(collection_table, collection_table.c.id == documents.c.collection_id)
    .join(versions, versions.c.id == documents.c.version_id)
    .where(documents.c.deleted_at.is_(None))
)
_BY_ID = _ALL.where(documents.c.id == bindparam("id"), documents.c.tenant == bindparam("tenant"))
_BY_NAMES = _ALL.where(
    documents.c.collection_id == bindparam("collection_id"),
    documents.c.name.in_(bindparam("names", expanding=True)),
)
_NEW_NEWEST = (
    update(documents)
    .where(documents.c.id == bindparam("of"))
    .values(version=bindparam("number"), version_id=bindparam("newest"), status=DocumentStatus.PENDING)
)
_PENDING_IS_CANCELLED = case(
    (versions.c.status == DocumentStatus.PENDING, literal(DocumentStatus.CANCELLED)), else_=versions.c.status
)
_RETIRE = update(versions).values(status=_PENDING_IS_CANCELLED, purge=Purge.DUE, updated_at=bindparam("now"))
_SUPERSEDE = _RETIRE.where(versions.c.id.in_(bindparam("ids", expanding=True)))
_BURY_VERSIONS = _RETIRE.where(versions.c.document_id == bindparam("of"), versions.c.purge != Purge.DONE)
_BURY = (
    update(documents)
    .where(documents.c.id == bindparam("of"))
    .values(deleted_at=bindparam("now"), searchable_version=0, searchable_version_id=None)
)
_SEARCHABLE_CHUNKS = (
    select(versions.c.chunks)
    .join(documents, documents.c.searchable_version_id == versions.c.id)
    .where(documents.c.id == bindparam("of"))
)


def record(row: Row[Any]) -> Document:
    """A row of `_ALL` as a record."""
    return Document(
        id=row.id,
        tenant=row.tenant,
        collection_id=row.collection_id,
        collection=row.collection,
        name=row.name,
        status=DocumentStatus(row.status),
        version=row.version,
        version_id=row.version_id,
        searchable_version=row.searchable_version,
        sha256=row.sha256,
        media_type=row.media_type,
        size_bytes=row.size_bytes,
        metadata=metadata_of(row.metadata),
        pages=row.pages,
        chunks=row.chunks,
        error=None if row.error is None else from_json(row.error, Failure),
        job_id=row.job_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def accept(
    conn: Connection, now: float, tenant: str, collection: str, uploads: Sequence[NewVersion]
) -> Sequence[Accepted]:
    for upload in uploads:
        document_name(upload.name)
        storable(upload.media_type, "A media type")
    home = collections.lock(conn, tenant, collection)
    known = _by_name(conn, home.id, [upload.name for upload in uploads])
    before = dict(known)
    accepted = []
    for upload in uploads:
        document = _next(known.get(upload.name), upload, home, now)
        accepted.append(Accepted(document=document, created=document is not known.get(upload.name)))
        known[upload.name] = document
    created = [item.document for item in accepted if item.created]
    _write(conn, now, before, known, created)
    return accepted


def _next(current: Document | None, upload: NewVersion, home: Collection, now: float) -> Document:
    """The document once the upload is in: `current` itself when that has the same content, done or on its way."""
    if (
        current is not None
        and current.status in _SAME_BYTES_WILL_DO
        and (current.sha256, current.media_type) == (upload.sha256, upload.media_type)
        and current.metadata == upload.metadata
    ):
        return current
    newest = Document(
        id=new_id("doc"),
        tenant=home.tenant,
        collection_id=home.id,
        collection=home.name,
        name=upload.name,
        status=DocumentStatus.PENDING,
        version=1,
        version_id=new_id("ver"),
        searchable_version=0,
        sha256=upload.sha256,
        media_type=upload.media_type,
        size_bytes=upload.size_bytes,
        metadata=upload.metadata,
        job_id=upload.job_id,
        created_at=now,
        updated_at=now,
    )
    if current is None:
        return newest
    return replace(
        newest,
        id=current.id,
        version=current.version + 1,
        searchable_version=current.searchable_version,
        created_at=current.created_at,
    )


def _by_name(conn: Connection, collection_id: str, names: Sequence[str]) -> dict[str, Document]:
    found = {}
    for start in range(0, len(names), _NAMES_A_QUERY):
        some = names[start : start + _NAMES_A_QUERY]
        for row in conn.execute(_BY_NAMES, {"collection_id": collection_id, "names": some}):
            found[row.name] = record(row)
    return found


def _write(
    conn: Connection, now: float, before: Mapping[str, Document], after: Mapping[str, Document], created: list[Document]
) -> None:
    """Writes what `accept` decided. `created`: the new versions in order; `after`: the newest of each name."""
    if not created:
        return
    touched = [after[name] for name in dict.fromkeys(document.name for document in created)]
    if new := [_document_row(document) for document in touched if document.name not in before]:
        conn.execute(insert(documents), new)
    conn.execute(insert(versions), [_version_row(document) for document in created])
    newest = [
        {"of": document.id, "number": document.version, "newest": document.version_id}
        for document in touched
        if document.name in before
    ]
    if newest:
        conn.execute(_NEW_NEWEST, newest)
    superseded = [before[d.name].version_id for d in touched if _is_superseded(before.get(d.name))]
    superseded += [d.version_id for d in created if after[d.name] is not d]
    for start in range(0, len(superseded), _NAMES_A_QUERY):
        conn.execute(_SUPERSEDE, {"ids": superseded[start : start + _NAMES_A_QUERY], "now": now})


def _is_superseded(previous: Document | None) -> bool:
    """Whether a newer version makes this one garbage at once: one that is done stays searchable until then."""
    return previous is not None and previous.status is not DocumentStatus.DONE


def _document_row(document: Document) -> dict[str, object]:
    return {
        "id": document.id,
        "tenant": document.tenant,
        "collection_id": document.collection_id,
        "name": document.name,
        "status": document.status,
        "version": document.version,
        "version_id": document.version_id,
        "searchable_version": 0,
        "searchable_version_id": None,
        "created_at": document.created_at,
    }


def _version_row(document: Document) -> dict[str, object]:
    return {
        "id": document.version_id,
        "document_id": document.id,
        "number": document.version,
        "sha256": document.sha256,
        "size_bytes": document.size_bytes,
        "media_type": document.media_type,
        "metadata": to_json(document.metadata),
        "job_id": document.job_id,
        "status": document.status,
        "pages": 0,
        "chunks": 0,
        "purge": Purge.KEEP,
        "updated_at": document.updated_at,
    }


def get(conn: Connection, tenant: str, document_id: str) -> Document:
    row = conn.execute(_BY_ID, {"id": document_id, "tenant": tenant}).one_or_none()
    if row is None:
        raise NotFound(f"There is no document {document_id!r}.")
    return record(row)


def list_page(
    conn: Connection,
    tenant: str,
    collection: str | None,
    statuses: frozenset[DocumentStatus],
    name: str | None,
    cursor: str | None,
    limit: int,
) -> DocumentPage:
    query: Select[Any] = _ALL.where(documents.c.tenant == tenant)
    if collection is not None:
        query = query.where(documents.c.collection_id == collections.get(conn, tenant, collection).id)
    if statuses:
        query = query.where(documents.c.status.in_(sorted(statuses)))
    if name is not None:
        query = query.where(documents.c.name == name)
    if cursor is not None:
        query = query.where(documents.c.id < _checked(cursor))
    rows = conn.execute(query.order_by(documents.c.id.desc()).limit(limit + 1)).all()
    page = [record(row) for row in rows[:limit]]
    return DocumentPage(documents=page, cursor=page[-1].id if len(rows) > limit else None)


def _checked(cursor: str) -> str:
    """A cursor is the id of the last document that was shown; ids rise with time, so inserts never move it."""
    if not (cursor.startswith("doc_") and cursor[4:].isalnum() and cursor.isascii()):
        raise InvalidInput(f"{cursor[:80]!a} is not a cursor of this list: use the one that the page before gave.")
    return cursor


def delete(conn: Connection, now: float, tenant: str, document_id: str) -> Document:
    collections.lock_id(conn, get(conn, tenant, document_id).collection_id)
    document = get(conn, tenant, document_id)
    chunks = conn.execute(_SEARCHABLE_CHUNKS, {"of": document_id}).scalar_one_or_none()
    conn.execute(_BURY, {"of": document_id, "now": now})
    conn.execute(_BURY_VERSIONS, {"of": document_id, "now": now})
    if chunks is not None:
        collections.count(conn, document.collection_id, documents=-1, chunks=-chunks)
    return document
