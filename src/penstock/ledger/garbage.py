"""Operations on what is to go: versions whose chunks must leave the index, and the blobs that only they held.

purge: KEEP ──superseded, deleted, failed, cancelled──▶ DUE ──garbage──▶ CLAIMED ──forget──▶ DONE, later no row
                                                         ▲                  │            └▶ KEEP (may be reopened)
                                                         └──a late finish───┘
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, literal, literal_column, or_, select, update

from penstock.ledger.base import Garbage
from penstock.ledger.schema import (
    Purge,
    batch_sources,
    batches,
    chunks,
    collections,
    documents,
    generations,
    versions,
)
from penstock.types import DocumentStatus

TOMBSTONE_S = 3600.0
"""How long the row of a dead version outlives its chunks. A worker that still had the version in hand and comes back
late finds the row in `finish_version`, which has the index cleaned once more."""

_IDS_A_QUERY = 500
_ROWS_A_SWEEP = 500

RETIRE = update(versions).values(
    status=case(
        (versions.c.status == DocumentStatus.PENDING, literal(DocumentStatus.CANCELLED)), else_=versions.c.status
    ),
    purge=Purge.DUE,
    updated_at=bindparam("now"),
)
"""For versions that nobody wants any more; what is pending of them is cancelled."""

_needed = and_(
    documents.c.deleted_at.is_(None),
    or_(documents.c.version_id == versions.c.id, documents.c.searchable_version_id == versions.c.id),
)
_ids = versions.c.id.in_(bindparam("ids", expanding=True))
_to_purge = versions.c.purge > literal_column("0")
_DUE = (
    select(versions.c.id, versions.c.document_id, documents.c.collection_id, collections.c.index_id)
    .join(documents, documents.c.id == versions.c.document_id)
    .join(collections, collections.c.id == documents.c.collection_id)
    .where(_to_purge, versions.c.purge < Purge.DONE)
    .order_by(versions.c.purge, versions.c.updated_at)
    .limit(bindparam("n"))
    .with_for_update(of=versions)
)
_GENERATIONS = select(generations.c.collection_id, generations.c.id).where(
    generations.c.collection_id.in_(bindparam("ids", expanding=True))
)
_CLAIM = update(versions).where(_ids).values(purge=Purge.CLAIMED)
_CLAIMED = (
    select(versions.c.id, _needed.label("needed"))
    .join(documents, documents.c.id == versions.c.document_id)
    .where(_ids, versions.c.purge == Purge.CLAIMED)
    .with_for_update(of=versions)
)
_DROP_CHUNKS = delete(chunks).where(chunks.c.version_id.in_(bindparam("ids", expanding=True)))
_PURGED = update(versions).where(_ids).values(purge=bindparam("to"))
_TOMBSTONES = (
    select(versions.c.id, versions.c.document_id)
    .where(_to_purge, versions.c.purge == Purge.DONE, versions.c.updated_at < bindparam("before"))
    .order_by(versions.c.updated_at)
    .limit(_ROWS_A_SWEEP)
)
_DROP_VERSIONS = delete(versions).where(_ids)
_DROP_DOCUMENTS = delete(documents).where(
    documents.c.id.in_(bindparam("ids", expanding=True)),
    documents.c.deleted_at.is_not(None),
    ~exists().where(versions.c.document_id == documents.c.id),
)
_DROP_COLLECTIONS = delete(collections).where(
    collections.c.deleted_at < bindparam("before"),
    *(~exists().where(table.c.collection_id == collections.c.id) for table in (documents, generations, batches)),
)
_LIVE_BLOBS = (
    select(versions.c.sha256)
    .distinct()
    .join(documents, documents.c.id == versions.c.document_id)
    .where(versions.c.sha256.in_(bindparam("ids", expanding=True)), _needed)
)
_SOURCE_BLOBS = select(batch_sources.c.sha256).where(batch_sources.c.sha256.in_(bindparam("ids", expanding=True)))


def _slices(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _IDS_A_QUERY] for start in range(0, len(ids), _IDS_A_QUERY))


def claim(conn: Connection, limit: int) -> Sequence[Garbage]:
    rows = conn.execute(_DUE, {"n": limit}).all()
    for some in _slices([row.id for row in rows]):
        conn.execute(_CLAIM, {"ids": some})
    others = defaultdict[str, list[str]](list)
    for some in _slices(sorted({row.collection_id for row in rows})):
        for collection_id, generation_id in conn.execute(_GENERATIONS, {"ids": some}):
            others[collection_id].append(generation_id)
    return [
        Garbage(
            version_id=row.id,
            document_id=row.document_id,
            collection_id=row.collection_id,
            index_ids=[row.index_id or row.collection_id, *others[row.collection_id]],
        )
        for row in rows
    ]


def forget(conn: Connection, now: float, version_ids: Sequence[str]) -> None:
    for some in _slices(version_ids):
        _forget(conn, some)
    _sweep(conn, now - TOMBSTONE_S)


def _forget(conn: Connection, version_ids: Sequence[str]) -> None:
    claimed = conn.execute(_CLAIMED, {"ids": version_ids}).all()
    if not claimed:
        return
    conn.execute(_DROP_CHUNKS, {"ids": [row.id for row in claimed]})
    needed = [row.id for row in claimed if row.needed]
    dead = [row.id for row in claimed if not row.needed]
    if needed:
        conn.execute(_PURGED, {"ids": needed, "to": Purge.KEEP})
    if dead:
        conn.execute(_PURGED, {"ids": dead, "to": Purge.DONE})


def _sweep(conn: Connection, before: float) -> None:
    """Drops rows that have been dead for long, a bounded number at a time."""
    rows = conn.execute(_TOMBSTONES, {"before": before}).all()
    if rows:
        conn.execute(_DROP_VERSIONS, {"ids": [row.id for row in rows]})
        conn.execute(_DROP_DOCUMENTS, {"ids": list({row.document_id for row in rows})})
    conn.execute(_DROP_COLLECTIONS, {"before": before})


def live_blobs(conn: Connection, sha256s: Sequence[str]) -> frozenset[str]:
    return frozenset(
        sha256
        for some in _slices(sha256s)
        for query in (_LIVE_BLOBS, _SOURCE_BLOBS)
        for sha256 in conn.execute(query, {"ids": some}).scalars()
    )
