"""Operations on batches. Each takes a connection inside a transaction.

gathering ──add … close──▶ gathered          A batch that is gathered is `running` or `done` by its documents.
    │  ▲                      │
    │  └───────retry──────────┘  (of URLs that could not be fetched)
    └──▶ failed, cancelled
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from penstock.errors import Conflict, NotFound
from penstock.ids import new_id
from penstock.ledger import collections
from penstock.ledger.accept import accept
from penstock.ledger.base import Accepted
from penstock.ledger.batch_records import (
    BatchWork,
    NewBatch,
    NewItem,
    NewSource,
    Position,
    Source,
    SourceKind,
)
from penstock.ledger.batch_views import BY_ID, GATHERED, WITH_COLLECTION, find, get, record
from penstock.ledger.garbage import RETIRE
from penstock.ledger.names import from_json, storable, to_json
from penstock.ledger.schema import batch_items, batch_sources, batches, documents, versions
from penstock.types import JSON, Batch, BatchState, DocumentStatus, Failure, Priority

_ROWS_A_SWEEP = 50
_BY_KEY = WITH_COLLECTION.where(batches.c.tenant == bindparam("tenant"), batches.c.idempotency_key == bindparam("key"))
_GATHERING = (
    # A literal, not a parameter, so that the partial index serves.
    WITH_COLLECTION.where(batches.c.state == literal_column("'gathering'"), batches.c.id > bindparam("after"))
    .order_by(batches.c.id)
    .limit(bindparam("n"))
)
_SOURCES = (
    select(batch_sources)
    .where(batch_sources.c.batch_id == bindparam("id"), batch_sources.c.seq >= bindparam("first"))
    .order_by(batch_sources.c.seq)
    .limit(bindparam("n"))
)
_ours = select(batch_items.c.version_id).where(batch_items.c.batch_id == bindparam("batch"), batch_items.c.created == 1)
_UNFINISHED = select(versions.c.id, versions.c.job_id).where(
    versions.c.id.in_(_ours), versions.c.status == DocumentStatus.PENDING
)
_CANCEL_VERSIONS = RETIRE.where(versions.c.id.in_(_ours), versions.c.status == DocumentStatus.PENDING)
_CANCEL_DOCUMENTS = (
    update(documents)
    .where(
        documents.c.id.in_(
            select(versions.c.document_id).where(versions.c.id.in_(_ours), versions.c.status == DocumentStatus.PENDING)
        )
    )
    .values(status=DocumentStatus.CANCELLED)
)
_of = batches.c.id == bindparam("of")
_MOVE = (
    update(batches)
    .where(_of)
    .values(
        source=bindparam("to_source"),
        entry=bindparam("to_entry"),
        items=bindparam("n_items"),
        updated_at=bindparam("now"),
    )
)
_SET_STATE = (
    update(batches).where(_of).values(state=bindparam("to"), error=bindparam("failure"), updated_at=bindparam("now"))
)
_GATHER_AGAIN = (
    update(batches)
    .where(_of)
    .values(state=BatchState.GATHERING, error=None, job_id=bindparam("job"), updated_at=bindparam("now"))
)
_DONE_WITH = delete(batch_sources).where(
    batch_sources.c.batch_id == bindparam("of"), batch_sources.c.kind != SourceKind.URL.value
)
_REFUSED_URLS = (
    select(batch_items.c.seq, batch_sources)
    .join(
        batch_sources,
        and_(batch_sources.c.batch_id == batch_items.c.batch_id, batch_sources.c.seq == batch_items.c.source),
    )
    .where(
        batch_items.c.batch_id == bindparam("id"),
        batch_items.c.error.is_not(None),
        batch_sources.c.kind == SourceKind.URL.value,
    )
    .order_by(batch_items.c.seq)
)
_LAST_SOURCE = select(func.max(batch_sources.c.seq)).where(batch_sources.c.batch_id == bindparam("id"))
_OLD = select(batches.c.id).where(batches.c.updated_at < bindparam("before"), batches.c.state != BatchState.GATHERING)


def create(conn: Connection, now: float, tenant: str, collection: str, new: NewBatch) -> tuple[Batch, bool]:
    home = collections.lock(conn, tenant, collection)
    if new.idempotency_key is not None:
        row = conn.execute(_BY_KEY, {"tenant": tenant, "key": new.idempotency_key}).one_or_none()
        if row is not None:
            if row.fingerprint != new.fingerprint:
                raise Conflict("This Idempotency-Key was used for other content. Use a new key for a new batch.")
            return record(conn, row), False
    batch_id = new_id("bat")
    conn.execute(
        insert(batches).values(
            id=batch_id,
            tenant=tenant,
            collection_id=home.id,
            priority=new.priority,
            state=BatchState.GATHERING,
            source=1,
            entry="",
            items=0,
            job_id=new.job_id,
            idempotency_key=new.idempotency_key,
            fingerprint=new.fingerprint,
            created_at=now,
            updated_at=now,
        )
    )
    _add_sources(conn, batch_id, new.sources, first=1)
    return get(conn, tenant, batch_id), True


def _add_sources(conn: Connection, batch_id: str, sources: Sequence[NewSource], *, first: int) -> None:
    rows = [
        {
            "batch_id": batch_id,
            "seq": seq,
            "kind": source.kind,
            "name": storable(source.name, "A source's name"),
            "sha256": source.sha256,
            "spec": to_json(source.spec),
        }
        for seq, source in enumerate(sources, first)
    ]
    if rows:
        conn.execute(insert(batch_sources), rows)


def work(conn: Connection, batch_id: str) -> BatchWork | None:
    """None when it is not gathering (any more)."""
    row = conn.execute(BY_ID, {"id": batch_id}).one_or_none()
    return _work(row) if row is not None and row.state == BatchState.GATHERING else None


def _work(row: Row[Any]) -> BatchWork:
    return BatchWork(
        batch_id=row.id,
        tenant=row.tenant,
        collection=row.collection,
        collection_id=row.collection_id,
        priority=Priority(row.priority),
        job_id=row.job_id,
        position=Position(source=row.source, entry=row.entry),
    )


def list_gathering(conn: Connection, after: str, limit: int) -> Sequence[BatchWork]:
    return [_work(row) for row in conn.execute(_GATHERING, {"after": after, "n": limit})]


def list_sources(conn: Connection, batch_id: str, first: int, limit: int) -> Sequence[Source]:
    return [
        Source(
            seq=row.seq,
            kind=SourceKind(row.kind),
            name=row.name,
            sha256=row.sha256,
            spec=from_json(row.spec, dict[str, JSON]),
        )
        for row in conn.execute(_SOURCES, {"id": batch_id, "first": first, "n": limit})
    ]


def add(
    conn: Connection, now: float, batch_id: str, seen: Position, to: Position, items: Sequence[NewItem]
) -> Sequence[Accepted] | None:
    """None when the batch is not gathering, or stands elsewhere: then nothing is added."""
    row = _lock(conn, batch_id)
    if row is None or row.state != BatchState.GATHERING or (row.source, row.entry) != (seen.source, seen.entry):
        return None
    if row.collection_deleted_at is not None:
        raise NotFound(f"The collection {row.collection!r} was deleted meanwhile.")
    accepted = accept(conn, now, row.tenant, row.collection, [item.version for item in items if item.version])
    of_item = iter(accepted)
    rows = [
        _item_row(batch_id, seq, item, next(of_item) if item.version else None)
        for seq, item in enumerate(items, row.items + 1)
    ]
    if rows:
        conn.execute(insert(batch_items), rows)
    conn.execute(
        _MOVE,
        {"of": batch_id, "to_source": to.source, "to_entry": to.entry, "n_items": row.items + len(rows), "now": now},
    )
    return accepted


def _item_row(batch_id: str, seq: int, item: NewItem, accepted: Accepted | None) -> dict[str, object]:
    return {
        "batch_id": batch_id,
        "seq": seq,
        "source": item.source,
        "name": storable(item.name, "A file's name"),
        "version_id": accepted.document.version_id if accepted else None,
        "created": int(accepted.created) if accepted else 0,
        "error": to_json(item.error) if item.error else None,
    }


def _lock(conn: Connection, batch_id: str) -> Row[Any] | None:
    """How the batch stands, which nobody else changes until this transaction ends."""
    row = conn.execute(BY_ID, {"id": batch_id}).one_or_none()
    if row is None:
        return None
    collections.lock_id(conn, row.collection_id)
    return conn.execute(BY_ID, {"id": batch_id}).one_or_none()


def close(conn: Connection, now: float, batch_id: str, failure: Failure | None) -> bool:
    row = _lock(conn, batch_id)
    if row is None or row.state != BatchState.GATHERING:
        return False
    state = BatchState.FAILED if failure else GATHERED
    told = to_json(failure) if failure else None
    conn.execute(_SET_STATE, {"of": batch_id, "to": state, "failure": told, "now": now})
    if failure is None:
        conn.execute(_DONE_WITH, {"of": batch_id})
    return True


def cancel(conn: Connection, now: float, tenant: str, batch_id: str) -> Sequence[str]:
    """The jobs of what was not finished."""
    find(conn, tenant, batch_id)
    row = _lock(conn, batch_id)
    assert row is not None
    unfinished = conn.execute(_UNFINISHED, {"batch": batch_id}).all()
    gathering = row.state == BatchState.GATHERING
    if not unfinished and not gathering:
        return []
    conn.execute(_CANCEL_DOCUMENTS, {"batch": batch_id})
    conn.execute(_CANCEL_VERSIONS, {"batch": batch_id, "now": now})
    conn.execute(_SET_STATE, {"of": batch_id, "to": BatchState.CANCELLED, "failure": row.error, "now": now})
    return [one.job_id for one in unfinished] + ([row.job_id] if gathering else [])


def gather_again(conn: Connection, now: float, tenant: str, batch_id: str, job_id: str) -> bool:
    find(conn, tenant, batch_id)
    row = _lock(conn, batch_id)
    assert row is not None
    if row.state == BatchState.GATHERING:
        return False
    again = conn.execute(_REFUSED_URLS, {"id": batch_id}).all()
    if row.state == GATHERED and not again:
        return False
    if again:
        last = conn.execute(_LAST_SOURCE, {"id": batch_id}).scalar_one() or 0
        sources = [
            NewSource(kind=SourceKind(one.kind), name=one.name, spec=from_json(one.spec, dict[str, JSON]))
            for one in again
        ]
        _add_sources(conn, batch_id, sources, first=last + 1)
        conn.execute(
            delete(batch_items).where(
                batch_items.c.batch_id == batch_id, batch_items.c.seq.in_([one.seq for one in again])
            )
        )
    conn.execute(_GATHER_AGAIN, {"of": batch_id, "job": job_id, "now": now})
    return True


def forget(conn: Connection, before: float) -> int:
    """Drops what is known of batches that ended long ago, a bounded number at a time; returns how many."""
    old = list(conn.execute(_OLD.limit(_ROWS_A_SWEEP), {"before": before}).scalars())
    for table in (batch_items, batch_sources):
        conn.execute(delete(table).where(table.c.batch_id.in_(old)))
    conn.execute(delete(batches).where(batches.c.id.in_(old)))
    return len(old)
