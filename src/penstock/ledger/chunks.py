"""Operations on chunks: only visible ones are ever returned. Each takes a connection inside a transaction."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from penstock.errors import InvalidInput
from penstock.ledger import documents as document_operations
from penstock.ledger.base import Found
from penstock.ledger.names import from_json, metadata_of, storable, to_json
from penstock.ledger.schema import chunks, documents, versions
from penstock.types import Chunk

_IDS_A_QUERY = 500

_VISIBLE = (
    select(
        chunks,
        documents.c.id.label("document_id"),
        documents.c.name.label("document_name"),
        versions.c.metadata,
    )
    .join(versions, versions.c.id == chunks.c.version_id)
    .join(documents, documents.c.searchable_version_id == chunks.c.version_id)
)
_BY_IDS = _VISIBLE.where(
    chunks.c.collection_id == bindparam("collection_id"), chunks.c.id.in_(bindparam("ids", expanding=True))
)
_BY_COLLECTION = (
    _VISIBLE.where(chunks.c.collection_id == bindparam("collection_id"), chunks.c.id > bindparam("after"))
    .order_by(chunks.c.id)
    .limit(bindparam("n"))
)
_BY_DOCUMENT = (
    _VISIBLE.where(documents.c.id == bindparam("document_id"), chunks.c.position > bindparam("after"))
    .order_by(chunks.c.position)
    .limit(bindparam("n"))
)


def record(row: Row[Any]) -> Chunk:
    """A row of `_VISIBLE` as a record."""
    return Chunk(
        id=row.id,
        document_id=row.document_id,
        version_id=row.version_id,
        collection_id=row.collection_id,
        position=row.position,
        text=row.text,
        start=row.start,
        end=row.end,
        tokens=row.tokens,
        page=row.page,
        headings=() if row.headings == "[]" else from_json(row.headings, tuple[str, ...]),
        kind=row.kind or "text",
        picture=row.picture,
    )


def _found(row: Row[Any]) -> Found:
    return Found(chunk=record(row), document_name=row.document_name, metadata=metadata_of(row.metadata))


def row(chunk: Chunk, collection_id: str, version_id: str) -> dict[str, object]:
    """A record as a row of the table. `InvalidInput` when it is of another version."""
    if (chunk.version_id, chunk.collection_id) != (version_id, collection_id):
        raise InvalidInput(f"Chunk {chunk.id} is of version {chunk.version_id}, not of {version_id}.")
    return {
        "collection_id": collection_id,
        "id": chunk.id,
        "version_id": version_id,
        "position": chunk.position,
        "text": storable(chunk.text, "A chunk's text"),
        "start": chunk.start,
        "end": chunk.end,
        "tokens": chunk.tokens,
        "page": chunk.page,
        "headings": to_json(chunk.headings),
        "kind": None if chunk.kind == "text" else chunk.kind,
        "picture": chunk.picture,
    }


def get(conn: Connection, collection_id: str, chunk_ids: Sequence[str]) -> Mapping[str, Found]:
    found = {}
    for start in range(0, len(chunk_ids), _IDS_A_QUERY):
        some = chunk_ids[start : start + _IDS_A_QUERY]
        for row in conn.execute(_BY_IDS, {"collection_id": collection_id, "ids": some}):
            found[row.id] = _found(row)
    return found


def scan(conn: Connection, collection_id: str, after: str, limit: int) -> Sequence[Found]:
    rows = conn.execute(_BY_COLLECTION, {"collection_id": collection_id, "after": after, "n": limit})
    return [_found(row) for row in rows]


def list_page(conn: Connection, tenant: str, document_id: str, after: int, limit: int) -> Sequence[Chunk]:
    document_operations.get(conn, tenant, document_id)
    rows = conn.execute(_BY_DOCUMENT, {"document_id": document_id, "after": after, "n": limit})
    return [record(row) for row in rows]
