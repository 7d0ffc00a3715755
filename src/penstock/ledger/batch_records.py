"""The records of batches that only ledger and pipeline speak; what users see of them is in `penstock.types`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.ledger.base import NewVersion
from penstock.types import JSON, Batch, BatchItem, Failure, Priority


class SourceKind(StrEnum):
    """Where documents of a batch come from. `file` and `archive` are in the blob store, `export` is one of ours there;
    `collection` is another one of the same tenant."""

    FILE = "file"
    ARCHIVE = "archive"
    URL = "url"
    FOLDER = "folder"
    COLLECTION = "collection"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """`name` is the file's name, the URL, the folder's path or the collection's name; `spec` is what the kind needs."""

    kind: SourceKind
    name: str
    sha256: str | None = None
    spec: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(NewSource):
    """`seq` counts from 1 within its batch."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """`idempotency_key` is the caller's, `fingerprint` tells whether two callers with one key mean the same."""

    job_id: str
    sources: Sequence[NewSource]
    priority: Priority = Priority.BULK
    idempotency_key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a batch is gathered: source `source` up to and with `entry` (words of that source; "" for nothing yet).

    What lies before is recorded; a worker that begins anew begins behind it.
    """

    source: int = 1
    entry: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchWork:
    """A batch that is to be gathered: what its handler needs to know."""

    batch_id: str
    tenant: str
    collection: str
    collection_id: str
    priority: Priority
    job_id: str
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """A file of the source `source`: a version to accept, or why it cannot be one."""

    source: int
    name: str
    version: NewVersion | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    batches: Sequence[Batch]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    items: Sequence[BatchItem]
    cursor: str | None = None
