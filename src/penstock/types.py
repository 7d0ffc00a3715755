"""The records everyone speaks. Frozen, slotted, JSON-shaped; times are Unix seconds, sizes bytes, offsets chars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeAlias

JSON: TypeAlias = Any
"""Anything that JSON can say: None, bool, int, float, str, and lists and string-keyed mappings of these."""

DEFAULT_TENANT = "default"


class Priority(StrEnum):
    """The class of a job. Interactive goes first; ageing sees to it that bulk is never starved."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BULK = "bulk"


# --- jobs -----------------------------------------------------------------------------------------------------------


class JobState(StrEnum):
    """`queued → running → succeeded | failed | cancelled`; `running → queued` on a retry or a lost lease."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """A final state never changes, but for a retry of a failed or cancelled job that somebody asks for."""
        return self in FINAL_JOB_STATES


FINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `done` of `total` in `stage` (total 0: not known yet)."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed: a stable code, a message for people, and at which attempt."""

    code: str
    message: str
    attempt: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """What a caller asks for. `payload` is JSON and is never trusted by the worker that reads it.

    `subject` names what the job is about (a document version, say), so that a reconciler can find what has no live job.
    `id` may be chosen by the caller, so that two stores can agree on it before either is written.
    `run_at` delays a job; `deadline` is the moment after which it is not started any more (both Unix seconds).
    `time_limit_s` bounds one attempt. `result_ttl_s` is how long the record outlives the job's end.
    """

    kind: str
    payload: Mapping[str, JSON] = field(default_factory=dict)
    id: str | None = None
    tenant: str = DEFAULT_TENANT
    priority: Priority = Priority.NORMAL
    subject: str | None = None
    idempotency_key: str | None = None
    run_at: float | None = None
    deadline: float | None = None
    time_limit_s: float = 3600.0
    max_attempts: int = 3
    result_ttl_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as its store knows it. `attempt` counts from 1 and is the fencing token of every write of that attempt.

    `excused` attempts do not count against `max_attempts`: those handed back, and all before a retry of a failed job.
    """

    id: str
    kind: str
    tenant: str
    priority: Priority
    state: JobState
    payload: Mapping[str, JSON]
    attempt: int = 0
    max_attempts: int = 3
    excused: int = 0
    subject: str | None = None
    idempotency_key: str | None = None
    progress: Progress | None = None
    result: JSON = None
    error: Failure | None = None
    failures: Sequence[Failure] = ()
    worker: str | None = None
    cancel_requested: bool = False
    created_at: float = 0.0
    run_at: float = 0.0
    deadline: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    time_limit_s: float = 3600.0
    result_ttl_s: float = 24 * 3600.0

    @property
    def last_attempt(self) -> bool:
        """Whether no other attempt follows where this one fails."""
        return self.attempt - self.excused >= self.max_attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's log. `seq` rises by one from 1 within the job; `type` is `state`, `progress` or `delta`."""

    seq: int
    type: str
    data: Mapping[str, JSON]
    attempt: int = 0
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model that a worker has open at the moment. `memory_bytes` is what its weights take there."""

    name: str
    kind: str
    dimensions: int = 0
    device: str = ""
    precision: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker process as it describes itself in the registry. `ready` only once its models are loaded and warm.

    `models` were loaded when it began, `loaded` are open now.

    `machine`: within which `pid` means something; empty where that is unknown.
    """

    id: str
    host: str
    pid: int
    kinds: Sequence[str]
    concurrency: int
    ready: bool
    running: int = 0
    models: Sequence[str] = ()
    loaded: Sequence[LoadedModel] = ()
    rss_bytes: int = 0
    started_at: float = 0.0
    seen_at: float = 0.0
    detail: str = ""
    machine: str = ""


# --- collections and documents --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionOptions:
    """What a collection's chunks and vectors are made with. Changing it means a reindex.

    `chunk_tokens` and `chunk_overlap` are counted by the tokenizer of `embedding_model`. With an `image_model` (CLIP)
    pictures are found too, by what they show; with `captions` the vision model describes the pictures in documents.
    """

    embedding_model: str = "default"
    chunker: str = "recursive"
    chunk_tokens: int = 240
    chunk_overlap: int = 32
    reranker: str | None = None
    image_model: str | None = None
    captions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A named set of documents of one tenant. `version` rises with every visible change of its content.

    `index_id` is where the index holds it: the collection's own id until a reindex moves it.
    """

    id: str
    tenant: str
    name: str
    version: int
    options: CollectionOptions
    documents: int = 0
    chunks: int = 0
    created_at: float = 0.0
    index_id: str = ""


class DocumentStatus(StrEnum):
    """Where a document stands. What it does while pending is told by its job's progress."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self is not DocumentStatus.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as its owner sees it: its newest version, and how far that has come.

    `status` is of the newest version; while that is pending or failed, an older one may still be searchable
    (`searchable_version`, 0: none). `notes` say what its parser cut or skipped.
    """

    id: str
    tenant: str
    collection_id: str
    collection: str
    name: str
    status: DocumentStatus
    version: int
    version_id: str
    searchable_version: int
    sha256: str
    media_type: str
    size_bytes: int
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    pages: int = 0
    chunks: int = 0
    error: Failure | None = None
    notes: tuple[str, ...] = ()
    progress: Progress | None = None
    job_id: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0


class BatchState(StrEnum):
    """`gathering` while its archives are unpacked, its URLs fetched, its folders walked; `running` until every document
    has ended; `done` then, whatever became of each. `failed`: it could not be gathered whole."""

    GATHERING = "gathering"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchItemState(StrEnum):
    """That of its document's version, or `refused` (never became one), or `gone` (deleted or replaced since)."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Many documents that were asked for together. `items` and `counts` are of what is gathered so far.

    `unchanged` of the items were there, or on their way, before. `job_id` is the job that gathers.
    """

    id: str
    tenant: str
    collection: str
    state: BatchState
    priority: Priority
    items: int = 0
    unchanged: int = 0
    counts: Mapping[BatchItemState, int] = field(default_factory=dict)
    error: Failure | None = None
    job_id: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One file of a batch: which document it became, or why none."""

    seq: int
    name: str
    state: BatchItemState
    created: bool
    document_id: str | None = None
    version_id: str | None = None
    job_id: str | None = None
    error: Failure | None = None


ChunkKind: TypeAlias = Literal["text", "caption", "picture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of one document version. `id` follows from (version_id, position), so writing it twice is harmless.

    `start` and `end` are character offsets into the version's parsed text; `page` counts from 1 (None: no pages).
    `kind` "picture" is a picture of the document, its `text` no more than a name for it; "caption" is what a model says
    that one shows. Both have no place in the text; `picture` says which one of the document it is, from 1.
    """

    id: str
    document_id: str
    version_id: str
    collection_id: str
    position: int
    text: str
    start: int
    end: int
    tokens: int
    page: int | None = None
    headings: Sequence[str] = ()
    kind: ChunkKind = "text"
    picture: int | None = None


# --- questions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk found for a question. `score` in [0, 1] is the fused one; the lanes' raw scores stand beside it.

    Hits come best first: by `rerank_score`, in [0, 1] too, where a reranker had the last word, else by `score`.
    `image_score` is the cosine of a picture to the question, or to its image, in the space of the image model.
    """

    chunk: Chunk
    document_name: str
    score: float
    dense_score: float | None = None
    fulltext_score: float | None = None
    rerank_score: float | None = None
    image_score: float | None = None
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """A numbered source of an answer. `start` and `end` are character offsets into the document's parsed text.

    `kind` "picture" is a picture of a document and "caption" what a model said of one: they have a page at most.
    "image" is the image that came with the question: the text calls it `[image]`; it has no number and no place.
    """

    number: int
    document_id: str
    document_name: str
    chunk_id: str
    quote: str
    start: int
    end: int
    page: int | None = None
    headings: Sequence[str] = ()
    score: float = 0.0
    kind: Literal["passage", "caption", "picture", "image"] = "passage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a generator counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`text` refers to its citations as [1], [2] …; `found` is False when the documents do not hold the answer.

    `timings_ms` has one entry a stage: queue_wait, embed, retrieve, rerank, first_token, generate, total.
    `degraded`: a part that could be done without has failed (the reranker); the answer stands on what was left.
    """

    text: str
    found: bool
    citations: Sequence[Citation]
    model: str
    collection_version: int = 0
    cached: bool = False
    notes: Sequence[str] = ()
    usage: Usage | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    degraded: bool = False
