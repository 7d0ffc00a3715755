"""What the server's replies hold beside the records of `penstock.types`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from penstock.types import (
    JSON,
    Answer,
    Batch,
    BatchItem,
    Chunk,
    Collection,
    Document,
    Failure,
    Hit,
    Job,
    JobState,
    Priority,
    WorkerInfo,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to upload under `name`, which is what makes it the same document next time.

    Without `media_type` the server looks at the name and the bytes. A path is read while it is sent.
    """

    name: str
    content: bytes | Path
    media_type: str | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewText:
    """A document that is text already."""

    name: str
    text: str
    media_type: str = "text/plain"
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedDocument:
    """`created` is False when these bytes were there already, or on their way."""

    document: Document
    job_id: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedDocuments:
    documents: Sequence[AcceptedDocument]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionList:
    collections: Sequence[Collection]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage:
    """Newest first. `cursor` gets the next page; None at the end."""

    documents: Sequence[Document]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPage:
    """In the order of the text. `cursor` gets the next page; None at the end."""

    chunks: Sequence[Chunk]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentWithJob:
    document: Document
    job: Job | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsDeleted:
    """How many documents match, and how many of them were deleted (0 for a dry run)."""

    matched: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPage:
    """Newest first. `cursor` gets the next page; None at the end."""

    batches: Sequence[Batch]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItemPage:
    """In the order in which they were gathered. `cursor` gets the next page; None at the end."""

    items: Sequence[BatchItem]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChanged:
    """How many documents are ingested again, and whether what could not be gathered is tried again."""

    batch: Batch
    documents: int
    gathering: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    hits: Sequence[Hit]
    collection_version: int = 0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionReply:
    job_id: str
    state: JobState
    answer: Answer | None = None
    error: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Newest first. `cursor` gets the next page; None at the end."""

    jobs: Sequence[Job]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsChanged:
    """How many jobs match, and how many of them were changed (0 for a dry run)."""

    matched: int
    changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHealth:
    """One priority class. Times in seconds; percentiles over the last few minutes, empty when nothing ran."""

    priority: Priority
    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_ready_age_s: float = 0.0
    drain_per_s: float = 0.0
    wait_s: Mapping[str, float] = field(default_factory=dict)
    run_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueList:
    queues: Sequence[QueueHealth]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerList:
    workers: Sequence[WorkerInfo]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """`checks` says by part `ok`, or what is wrong."""

    ready: bool
    checks: Mapping[str, str] = field(default_factory=dict)
