"""The operation that takes uploads in: which are new, which are there already, and what they supersede."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, insert, update

from penstock.ids import new_id
from penstock.ledger import collections
from penstock.ledger.base import Accepted, NewVersion
from penstock.ledger.documents import ALL, record
from penstock.ledger.garbage import RETIRE
from penstock.ledger.names import document_name, storable, to_json
from penstock.ledger.schema import Purge, documents, versions
from penstock.types import Collection, Document, DocumentStatus

_NAMES_A_QUERY = 500
_SAME_BYTES_WILL_DO = frozenset({DocumentStatus.PENDING, DocumentStatus.DONE})

_BY_NAMES = ALL.where(
    documents.c.collection_id == bindparam("collection_id"),
    documents.c.name.in_(bindparam("names", expanding=True)),
)
_NEW_NEWEST = (
    update(documents)
    .where(documents.c.id == bindparam("of"))
    .values(version=bindparam("number"), version_id=bindparam("newest"), status=DocumentStatus.PENDING)
)
_SUPERSEDE = RETIRE.where(versions.c.id.in_(bindparam("ids", expanding=True)))


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
