"""Operations on versions: their way through ingest. Each takes a connection inside a transaction."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, insert, literal_column, select, update

from penstock.errors import InvalidInput, NotFound, Unavailable
from penstock.ledger import chunks as chunk_operations
from penstock.ledger import collections
from penstock.ledger.base import Generation, VersionWork
from penstock.ledger.names import from_json, metadata_of, to_json
from penstock.ledger.schema import Purge, chunks, documents, generations, versions
from penstock.ledger.schema import collections as collection_table
from penstock.types import Chunk, Collection, CollectionOptions, DocumentStatus, Failure

_next = generations.alias("next_generation")
_live = and_(documents.c.version_id == versions.c.id, documents.c.deleted_at.is_(None))
_WORK = (
    select(
        versions,
        documents.c.tenant,
        documents.c.name,
        _live.label("live"),
        documents.c.collection_id,
        collection_table.c.name.label("collection"),
        collection_table.c.version.label("collection_version"),
        collection_table.c.options,
        collection_table.c.documents.label("collection_documents"),
        collection_table.c.chunks.label("collection_chunks"),
        collection_table.c.created_at,
        collection_table.c.index_id,
        _next.c.id.label("next_id"),
        _next.c.options.label("next_options"),
        _next.c.job_id.label("next_job_id"),
    )
    .join(documents, documents.c.id == versions.c.document_id)
    .join(collection_table, collection_table.c.id == documents.c.collection_id)
    .outerjoin(
        _next, and_(_next.c.collection_id == collection_table.c.id, _next.c.state == literal_column("'building'"))
    )
)
_WORK_BY_ID = _WORK.where(versions.c.id == bindparam("id"))
_WORK_BY_IDS = _WORK.where(versions.c.id.in_(bindparam("ids", expanding=True)))
_WORK_PENDING = (
    # The status is a literal, not a parameter, so that the partial index of pending versions serves.
    _WORK.where(versions.c.status == literal_column("'pending'"), versions.c.id > bindparam("after"))
    .order_by(versions.c.id)
    .limit(bindparam("n"))
)
_LOCK = (
    select(collection_table.c.id)
    .join(documents, documents.c.collection_id == collection_table.c.id)
    .join(versions, versions.c.document_id == documents.c.id)
    .where(versions.c.id.in_(bindparam("ids", expanding=True)))
    .with_for_update(of=collection_table)
)
_shown = versions.alias("shown")
_STANDING = (
    select(
        versions.c.id,
        versions.c.number,
        versions.c.status,
        versions.c.purge,
        versions.c.document_id,
        documents.c.collection_id,
        collection_table.c.index_id,
        _next.c.id.label("next_id"),
        _live.label("live"),
        _shown.c.id.label("shown_id"),
        _shown.c.chunks.label("shown_chunks"),
    )
    .join(documents, documents.c.id == versions.c.document_id)
    .join(collection_table, collection_table.c.id == documents.c.collection_id)
    .outerjoin(
        _next, and_(_next.c.collection_id == collection_table.c.id, _next.c.state == literal_column("'building'"))
    )
    .outerjoin(_shown, _shown.c.id == documents.c.searchable_version_id)
    .where(versions.c.id.in_(bindparam("ids", expanding=True)))
)
_of = versions.c.id == bindparam("of")
_FINISH = (
    update(versions)
    .where(_of)
    .values(
        status=DocumentStatus.DONE,
        pages=bindparam("n_pages"),
        chunks=bindparam("n_chunks"),
        notes=bindparam("said"),
        updated_at=bindparam("now"),
    )
)
_END = (
    update(versions)
    .where(_of)
    .values(status=bindparam("to"), error=bindparam("failure"), purge=Purge.DUE, updated_at=bindparam("now"))
)
_REOPEN = (
    update(versions)
    .where(_of, versions.c.purge != Purge.CLAIMED)
    .values(
        status=DocumentStatus.PENDING,
        error=None,
        purge=Purge.KEEP,
        job_id=bindparam("job"),
        updated_at=bindparam("now"),
    )
)
_PURGE = update(versions).where(_of).values(purge=Purge.DUE, updated_at=bindparam("now"))
_SHOW = (
    update(documents)
    .where(documents.c.id == bindparam("of"))
    .values(
        status=DocumentStatus.DONE, searchable_version=bindparam("number"), searchable_version_id=bindparam("shown")
    )
)
_SET_STATUS = update(documents).where(documents.c.id == bindparam("of")).values(status=bindparam("to"))


def record(row: Row[Any]) -> VersionWork:
    """A row of `_WORK` as a record."""
    return VersionWork(
        version_id=row.id,
        document_id=row.document_id,
        tenant=row.tenant,
        collection=Collection(
            id=row.collection_id,
            tenant=row.tenant,
            name=row.collection,
            version=row.collection_version,
            options=from_json(row.options, CollectionOptions),
            documents=row.collection_documents,
            chunks=row.collection_chunks,
            created_at=row.created_at,
            index_id=row.index_id or row.collection_id,
        ),
        name=row.name,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        media_type=row.media_type,
        job_id=row.job_id,
        metadata=metadata_of(row.metadata),
        status=DocumentStatus(row.status),
        live=bool(row.live),
        building=_generation(row) if row.next_id is not None else None,
    )


def _generation(row: Row[Any]) -> Generation:
    return Generation(
        id=row.next_id,
        tenant=row.tenant,
        collection_id=row.collection_id,
        options=from_json(row.next_options, CollectionOptions),
        job_id=row.next_job_id,
    )


def get(conn: Connection, version_id: str) -> VersionWork:
    row = conn.execute(_WORK_BY_ID, {"id": version_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no document version {version_id!r}.")
    return record(row)


def get_many(conn: Connection, version_ids: Sequence[str]) -> Mapping[str, VersionWork]:
    return {row.id: record(row) for row in conn.execute(_WORK_BY_IDS, {"ids": list(version_ids)})}


def list_pending(conn: Connection, after: str, limit: int) -> Sequence[VersionWork]:
    # A pending version is live: superseding or deleting it cancels it.
    return [record(row) for row in conn.execute(_WORK_PENDING, {"after": after, "n": limit})]


def _lock(conn: Connection, version_ids: Sequence[str]) -> Mapping[str, Row[Any]]:
    """How the versions stand, which nobody else changes until this transaction ends."""
    conn.execute(_LOCK, {"ids": version_ids})
    return {row.id: row for row in conn.execute(_STANDING, {"ids": version_ids})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """What `Ledger.finish_version` is told, and when."""

    version_id: str
    chunks: Sequence[Chunk]
    pages: int
    notes: Sequence[str]
    index_ids: frozenset[str] | None
    now: float


def finish(conn: Connection, finishes: Sequence[Finish]) -> Sequence[bool | Exception]:
    """As `Ledger.finish_version` for each: many documents of a moment cost little more than one."""
    ids = [one.version_id for one in finishes]
    if len(set(ids)) < len(ids):  # the second call for a version is to see what the first did
        return [finish(conn, [one])[0] for one in finishes]
    standing = _lock(conn, ids)
    todo = _Finishing()
    outcomes = [todo.judge(one, standing.get(one.version_id)) for one in finishes]
    todo.write(conn)
    return outcomes


class _Finishing:
    """Rows to write for the versions of one transaction."""

    def __init__(self) -> None:
        self._chunks: list[dict[str, object]] = []
        self._finished: list[dict[str, object]] = []
        self._shown: list[dict[str, object]] = []
        self._purged: list[dict[str, object]] = []
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def judge(self, one: Finish, version: Row[Any] | None) -> bool | Exception:
        if version is None:
            return False
        if version.shown_id == one.version_id:
            return True
        if not version.live or version.status != DocumentStatus.PENDING:
            # Whoever asks has written to the index already: that must go, even if it was purged before.
            self._purged.append({"of": one.version_id, "now": one.now})
            return False
        if one.index_ids is not None and not _places(version) <= one.index_ids:
            return Unavailable("A reindex of the collection has begun or ended meanwhile: the document goes there too.")
        try:
            rows = [chunk_operations.row(chunk, version.collection_id, one.version_id) for chunk in one.chunks]
        except InvalidInput as exc:
            return exc
        self._take(one, version, rows)
        return True

    def _take(self, one: Finish, version: Row[Any], rows: Sequence[dict[str, object]]) -> None:
        said = to_json(one.notes) if one.notes else None
        size = len(rows)
        self._chunks += rows
        self._finished.append(
            {"of": one.version_id, "n_pages": one.pages, "n_chunks": size, "said": said, "now": one.now}
        )
        self._shown.append({"of": version.document_id, "number": version.number, "shown": one.version_id})
        if version.shown_id is not None:
            self._purged.append({"of": version.shown_id, "now": one.now})
        self._counts[version.collection_id].update(
            documents=0 if version.shown_id else 1, chunks=size - (version.shown_chunks or 0)
        )

    def write(self, conn: Connection) -> None:
        for statement, rows in (
            (insert(chunks), self._chunks),
            (_FINISH, self._finished),
            (_SHOW, self._shown),
            (_PURGE, self._purged),
        ):
            if rows:
                conn.execute(statement, rows)
        for collection_id, more in sorted(self._counts.items()):
            collections.count(conn, collection_id, documents=more["documents"], chunks=more["chunks"])


def _places(version: Row[Any]) -> frozenset[str]:
    """Where in the index a version must be before it can be searchable."""
    serving = version.index_id or version.collection_id
    return frozenset({serving, version.next_id or serving})


def fail(conn: Connection, now: float, version_id: str, failure: Failure) -> None:
    _end(conn, now, version_id, DocumentStatus.FAILED, to_json(failure))


def cancel(conn: Connection, now: float, version_id: str) -> None:
    _end(conn, now, version_id, DocumentStatus.CANCELLED, None)


def _end(conn: Connection, now: float, version_id: str, to: DocumentStatus, failure: str | None) -> None:
    version = _lock(conn, [version_id]).get(version_id)
    if version is None or version.status != DocumentStatus.PENDING:
        return
    conn.execute(_END, {"of": version_id, "to": to, "failure": failure, "now": now})
    conn.execute(_SET_STATUS, {"of": version.document_id, "to": to})


def reopen(conn: Connection, now: float, version_id: str, job_id: str) -> bool:
    version = _lock(conn, [version_id]).get(version_id)
    if version is None or not version.live or version.status == DocumentStatus.DONE:
        return False
    if not conn.execute(_REOPEN, {"of": version_id, "job": job_id, "now": now}).rowcount:
        raise Unavailable("What the last attempt left in the index is being taken out just now: try again in a second.")
    conn.execute(_SET_STATUS, {"of": version.document_id, "to": DocumentStatus.PENDING})
    return True
