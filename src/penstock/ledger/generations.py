"""Operations on generations: where in the index a collection is, was, and is being rebuilt. Each takes a connection
inside a transaction.

    start ──▶ building ──switch──▶ (the collection's `index_id`)     The one before becomes `retired`, until the index
                  └────abandon───▶ retired                           has dropped it and `forget` is called.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from penstock.errors import Conflict
from penstock.ledger import collections
from penstock.ledger.base import Generation
from penstock.ledger.names import from_json, to_json
from penstock.ledger.schema import BUILDING, RETIRED, generations
from penstock.ledger.schema import collections as collection_table
from penstock.types import CollectionOptions

_ALL = select(generations, collection_table.c.tenant).join(
    collection_table, collection_table.c.id == generations.c.collection_id
)
_BUILDING = _ALL.where(generations.c.collection_id == bindparam("collection_id"), generations.c.state == BUILDING)
_BY_ID = _ALL.where(generations.c.id == bindparam("id"))
_ALL_BUILDING = _ALL.where(generations.c.state == BUILDING).order_by(generations.c.id)
_RETIRED = (
    select(generations)
    .where(generations.c.state == RETIRED, generations.c.updated_at <= bindparam("before"))
    .order_by(generations.c.id)
)
_RETIRE = (
    update(generations)
    .where(generations.c.id == bindparam("of"), generations.c.state == BUILDING)
    .values(state=RETIRED, updated_at=bindparam("now"))
)
_SWITCH = (
    update(collection_table)
    .where(collection_table.c.id == bindparam("of"))
    .values(index_id=bindparam("to"), options=bindparam("new_options"), version=collection_table.c.version + 1)
)
_MOVE = (
    update(generations)
    .where(generations.c.id == bindparam("of"), generations.c.state == BUILDING)
    .values(cursor=bindparam("to"), done=bindparam("n"), updated_at=bindparam("now"))
)


_START = insert(generations).values(
    state=BUILDING, cursor="", done=0, created_at=bindparam("now"), updated_at=bindparam("now")
)


def record(row: Row[Any]) -> Generation:
    return Generation(
        id=row.id,
        tenant=row.tenant,
        collection_id=row.collection_id,
        options=from_json(row.options, CollectionOptions),
        cursor=row.cursor,
        done=row.done,
        job_id=row.job_id,
    )


def start(
    conn: Connection,
    now: float,
    tenant: str,
    name: str,
    generation_id: str,
    options: CollectionOptions,
    job_id: str,
) -> Generation:
    home = collections.lock(conn, tenant, name)
    if conn.execute(_BUILDING, {"collection_id": home.id}).one_or_none() is not None:
        raise Conflict(f"A reindex of {name!r} is running. Wait for it, or cancel its job first.")
    values = {"id": generation_id, "collection_id": home.id, "options": to_json(options), "job_id": job_id, "now": now}
    conn.execute(_START, values)
    return record(conn.execute(_BY_ID, {"id": generation_id}).one())


def building(conn: Connection, generation_id: str) -> Generation | None:
    """None when it is not being built (any more)."""
    row = conn.execute(_BY_ID, {"id": generation_id}).one_or_none()
    return record(row) if row is not None and row.state == BUILDING else None


def building_of(conn: Connection, collection_id: str) -> Generation | None:
    row = conn.execute(_BUILDING, {"collection_id": collection_id}).one_or_none()
    return record(row) if row is not None else None


def list_building(conn: Connection) -> Sequence[Generation]:
    return [record(row) for row in conn.execute(_ALL_BUILDING)]


def move(conn: Connection, now: float, generation_id: str, cursor: str, done: int) -> bool:
    moved = conn.execute(_MOVE, {"of": generation_id, "to": cursor, "n": done, "now": now})
    return bool(moved.rowcount)


def switch(conn: Connection, now: float, generation_id: str) -> bool:
    """False when it was abandoned. True also when it was switched to before."""
    row = conn.execute(_BY_ID, {"id": generation_id}).one_or_none()
    if row is None:
        serving = select(func.count()).where(collection_table.c.index_id == generation_id)
        return bool(conn.execute(serving).scalar_one())
    collections.lock_id(conn, row.collection_id)
    home = conn.execute(select(collection_table).where(collection_table.c.id == row.collection_id)).one()
    row = conn.execute(_BY_ID, {"id": generation_id}).one_or_none()
    if row is None or row.state != BUILDING or home.deleted_at is not None:
        return False
    conn.execute(_SWITCH, {"of": home.id, "to": generation_id, "new_options": row.options})
    conn.execute(delete(generations).where(generations.c.id == generation_id))
    conn.execute(insert(generations).values(collections.retired(home.index_id or home.id, home.id, home.options, now)))
    return True


def abandon(conn: Connection, now: float, generation_id: str) -> None:
    conn.execute(_RETIRE, {"of": generation_id, "now": now})


def list_retired(conn: Connection, before: float) -> Sequence[str]:
    return list(conn.execute(_RETIRED.with_only_columns(generations.c.id), {"before": before}).scalars())


def forget(conn: Connection, generation_id: str) -> None:
    conn.execute(delete(generations).where(generations.c.id == generation_id, generations.c.state == RETIRED))
