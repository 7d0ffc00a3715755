"""Operations that show batches: their counts and their items. Each takes a connection inside a transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, literal_column, select

from penstock.errors import InvalidInput, NotFound
from penstock.ledger.batch_records import BatchPage, ItemPage
from penstock.ledger.names import from_json
from penstock.ledger.schema import batch_items, batches, versions
from penstock.ledger.schema import collections as collection_table
from penstock.types import Batch, BatchItem, BatchItemState, BatchState, Failure, Priority

GATHERED = "gathered"
"""The stored state of a batch all of whose items are known: `BatchState` RUNNING or DONE."""

WITH_COLLECTION = select(
    batches, collection_table.c.name.label("collection"), collection_table.c.deleted_at.label("collection_deleted_at")
).join(collection_table, collection_table.c.id == batches.c.collection_id)
BY_ID = WITH_COLLECTION.where(batches.c.id == bindparam("id"))
_item_state = case(
    (batch_items.c.error.is_not(None), BatchItemState.REFUSED.value),
    (versions.c.id.is_(None), BatchItemState.GONE.value),
    else_=versions.c.status,
)
_COUNTS = (
    select(
        _item_state.label("state"),
        func.count().label("n"),
        func.sum(case((and_(batch_items.c.created == 0, batch_items.c.error.is_(None)), 1), else_=0)).label(
            "unchanged"
        ),
    )
    .select_from(batch_items.outerjoin(versions, versions.c.id == batch_items.c.version_id))
    .where(batch_items.c.batch_id == bindparam("id"))
    .group_by(literal_column("1"))
)
_ITEMS = (
    select(
        batch_items,
        _item_state.label("state"),
        versions.c.document_id,
        versions.c.job_id,
        versions.c.error.label("version_error"),
    )
    .select_from(batch_items.outerjoin(versions, versions.c.id == batch_items.c.version_id))
    .where(batch_items.c.batch_id == bindparam("id"), batch_items.c.seq > bindparam("after"))
    .order_by(batch_items.c.seq)
    .limit(bindparam("n"))
)


def find(conn: Connection, tenant: str | None, batch_id: str) -> Row[Any]:
    row = conn.execute(BY_ID, {"id": batch_id}).one_or_none()
    if row is None or (tenant is not None and row.tenant != tenant):
        raise NotFound(f"There is no batch {batch_id!r}.")
    return row


def get(conn: Connection, tenant: str, batch_id: str) -> Batch:
    return record(conn, find(conn, tenant, batch_id))


def record(conn: Connection, row: Row[Any]) -> Batch:
    rows = conn.execute(_COUNTS, {"id": row.id}).all()
    counts = {BatchItemState(one.state): one.n for one in rows}
    return Batch(
        id=row.id,
        tenant=row.tenant,
        collection=row.collection,
        state=_state(row.state, counts),
        priority=Priority(row.priority),
        items=sum(counts.values()),
        unchanged=sum(one.unchanged for one in rows),
        counts=counts,
        error=None if row.error is None else from_json(row.error, Failure),
        job_id=row.job_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _state(stored: str, counts: Mapping[BatchItemState, int]) -> BatchState:
    if stored != GATHERED:
        return BatchState(stored)
    return BatchState.RUNNING if counts.get(BatchItemState.PENDING) else BatchState.DONE


def list_page(conn: Connection, tenant: str, cursor: str | None, limit: int) -> BatchPage:
    query = WITH_COLLECTION.where(batches.c.tenant == tenant)
    if cursor is not None:
        query = query.where(batches.c.id < _checked(cursor))
    rows = conn.execute(query.order_by(batches.c.id.desc()).limit(limit + 1)).all()
    page = [record(conn, row) for row in rows[:limit]]
    return BatchPage(batches=page, cursor=page[-1].id if len(rows) > limit else None)


def _checked(cursor: str) -> str:
    if not (cursor.startswith("bat_") and cursor[4:].isalnum() and cursor.isascii()):
        raise InvalidInput(f"{cursor[:80]!a} is not a cursor of this list: use the one that the page before gave.")
    return cursor


def list_items(
    conn: Connection,
    tenant: str,
    batch_id: str,
    states: frozenset[BatchItemState],
    cursor: str | None,
    limit: int,
) -> ItemPage:
    find(conn, tenant, batch_id)
    query = _ITEMS
    if states:
        query = query.where(_item_state.in_(sorted(states)))
    rows = conn.execute(query, {"id": batch_id, "after": _seq(cursor), "n": limit + 1}).all()
    page = [_item(row) for row in rows[:limit]]
    return ItemPage(items=page, cursor=str(page[-1].seq) if len(rows) > limit else None)


def _seq(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 16):
        raise InvalidInput(f"{cursor[:80]!a} is not a cursor of this list: use the one that the page before gave.")
    return int(cursor)


def _item(row: Row[Any]) -> BatchItem:
    error = row.error or row.version_error
    return BatchItem(
        seq=row.seq,
        name=row.name,
        state=BatchItemState(row.state),
        created=bool(row.created),
        document_id=row.document_id,
        version_id=row.version_id if row.document_id is not None else None,
        job_id=row.job_id,
        error=None if error is None else from_json(error, Failure),
    )
