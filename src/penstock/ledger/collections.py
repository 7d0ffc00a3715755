"""Operations on collections. Each takes a connection inside a transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from penstock.errors import Conflict, NotFound
from penstock.ids import new_id
from penstock.ledger.garbage import RETIRE
from penstock.ledger.names import collection_name, from_json, to_json
from penstock.ledger.schema import BUILDING, RETIRED, Purge, collections, documents, generations, versions
from penstock.types import Collection, CollectionOptions

_ALL = select(collections).where(collections.c.deleted_at.is_(None))
_BY_NAME = _ALL.where(collections.c.tenant == bindparam("tenant"), collections.c.name == bindparam("name"))
_BY_NAME_LOCKED = _BY_NAME.with_for_update()
_LOCK = select(collections.c.id).where(collections.c.id == bindparam("id")).with_for_update()
_COUNT = (
    update(collections)
    .where(collections.c.id == bindparam("of"))
    .values(
        version=collections.c.version + 1,
        documents=collections.c.documents + bindparam("more_documents"),
        chunks=collections.c.chunks + bindparam("more_chunks"),
    )
)
_BURY = update(collections).where(collections.c.id == bindparam("of")).values(deleted_at=bindparam("now"))
_BURY_DOCUMENTS = (
    update(documents)
    .where(documents.c.collection_id == bindparam("of"), documents.c.deleted_at.is_(None))
    .values(deleted_at=bindparam("now"), searchable_version=0, searchable_version_id=None)
)
_ABANDON = (
    update(generations)
    .where(generations.c.collection_id == bindparam("of"), generations.c.state == BUILDING)
    .values(state=RETIRED, updated_at=bindparam("now"))
)
_BURY_VERSIONS = RETIRE.where(
    versions.c.document_id.in_(select(documents.c.id).where(documents.c.collection_id == bindparam("of"))),
    versions.c.purge != Purge.DONE,
)


def record(row: Row[Any]) -> Collection:
    """A row of the table as a record."""
    return Collection(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        version=row.version,
        options=from_json(row.options, CollectionOptions),
        documents=row.documents,
        chunks=row.chunks,
        created_at=row.created_at,
        index_id=row.index_id or row.id,
    )


def create(conn: Connection, now: float, tenant: str, name: str, options: CollectionOptions) -> Collection:
    collection_id = new_id("col")
    created = Collection(
        id=collection_id,
        tenant=tenant,
        name=collection_name(name),
        version=1,
        options=options,
        created_at=now,
        index_id=collection_id,
    )
    try:
        conn.execute(
            insert(collections).values(
                id=created.id,
                tenant=tenant,
                name=created.name,
                version=created.version,
                options=to_json(options),
                documents=0,
                chunks=0,
                created_at=now,
            )
        )
    except IntegrityError as exc:
        raise Conflict(f"There is a collection {created.name!r} already.") from exc
    return created


def get(conn: Connection, tenant: str, name: str) -> Collection:
    return _find(conn, _BY_NAME, tenant, name)


def lock(conn: Connection, tenant: str, name: str) -> Collection:
    """As `get`; nobody else changes the collection or its documents until this transaction ends."""
    return _find(conn, _BY_NAME_LOCKED, tenant, name)


def lock_id(conn: Connection, collection_id: str) -> None:
    conn.execute(_LOCK, {"id": collection_id})


def _find(conn: Connection, query: Select[Any], tenant: str, name: str) -> Collection:
    row = conn.execute(query, {"tenant": tenant, "name": collection_name(name)}).one_or_none()
    if row is None:
        raise NotFound(f"There is no collection {name!r}. Check the name, or make the collection first.")
    return record(row)


def list_all(conn: Connection, tenant: str | None) -> Sequence[Collection]:
    query = _ALL if tenant is None else _ALL.where(collections.c.tenant == tenant)
    return [record(row) for row in conn.execute(query.order_by(collections.c.name, collections.c.tenant))]


def delete(conn: Connection, now: float, tenant: str, name: str) -> Collection:
    found = lock(conn, tenant, name)
    of = {"of": found.id, "now": now}
    conn.execute(_BURY, of)
    conn.execute(_BURY_DOCUMENTS, of)
    conn.execute(_BURY_VERSIONS, of)
    conn.execute(_ABANDON, of)
    conn.execute(insert(generations).values(retired(found.index_id, found.id, to_json(found.options), now)))
    return found


def retired(index_id: str, collection_id: str, options: str, now: float) -> dict[str, object]:
    """The row of a place in the index that nobody searches from now on."""
    return {
        "id": index_id,
        "collection_id": collection_id,
        "state": RETIRED,
        "options": options,
        "cursor": "",
        "done": 0,
        "job_id": "",
        "created_at": now,
        "updated_at": now,
    }


def count(conn: Connection, collection_id: str, *, documents: int, chunks: int) -> None:
    """Its content changed visibly: raises its version, and its counts by these."""
    conn.execute(_COUNT, {"of": collection_id, "more_documents": documents, "more_chunks": chunks})
