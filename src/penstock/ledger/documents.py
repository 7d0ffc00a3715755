"""Operations on documents. Each takes a connection inside a transaction."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select, update

from penstock.errors import InvalidInput, NotFound
from penstock.ledger import collections
from penstock.ledger.base import DocumentPage
from penstock.ledger.garbage import RETIRE
from penstock.ledger.names import from_json, metadata_of
from penstock.ledger.schema import Purge, documents, versions
from penstock.ledger.schema import collections as collection_table
from penstock.types import Document, DocumentStatus, Failure

ALL = (
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
        versions.c.notes,
        versions.c.updated_at,
    )
    .join(collection_table, collection_table.c.id == documents.c.collection_id)
    .join(versions, versions.c.id == documents.c.version_id)
    .where(documents.c.deleted_at.is_(None))
)
_BY_ID = ALL.where(documents.c.id == bindparam("id"), documents.c.tenant == bindparam("tenant"))
_BURY_VERSIONS = RETIRE.where(versions.c.document_id == bindparam("of"), versions.c.purge != Purge.DONE)
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
    """A row of `ALL` as a record."""
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
        notes=() if row.notes is None else from_json(row.notes, tuple[str, ...]),
        job_id=row.job_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


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
    query: Select[Any] = ALL.where(documents.c.tenant == tenant)
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
    _bury(conn, now, document)
    return document


def delete_many(conn: Connection, now: float, tenant: str, document_ids: Sequence[str]) -> Sequence[Document]:
    deleted = []
    for document_id in document_ids:
        with suppress(NotFound):
            deleted.append(delete(conn, now, tenant, document_id))
    return deleted


def _bury(conn: Connection, now: float, document: Document) -> None:
    document_id = document.id
    chunks = conn.execute(_SEARCHABLE_CHUNKS, {"of": document_id}).scalar_one_or_none()
    conn.execute(_BURY, {"of": document_id, "now": now})
    conn.execute(_BURY_VERSIONS, {"of": document_id, "now": now})
    if chunks is not None:
        collections.count(conn, document.collection_id, documents=-1, chunks=-chunks)
