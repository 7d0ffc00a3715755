"""What callers get, for the documentation: the records of `penstock.types` and what stands around them.

Answers are written straight from the records (`json_io.reply`); these models only describe them.
"""

from typing import Literal

from pydantic import BaseModel, Field

from penstock.jobs.base import QueueStats
from penstock.types import (
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
    WorkerInfo,
)


class Collections(BaseModel):
    collections: list[Collection]


class AcceptedDocument(BaseModel):
    document: Document
    job_id: str
    created: bool = Field(description="False when these bytes were there, or on their way, already.")
    status: Literal["accepted", "already_pending", "already_indexed"]


class AcceptedDocuments(BaseModel):
    documents: list[AcceptedDocument] = Field(description="In the order of the request.")


class Documents(BaseModel):
    documents: list[Document]
    cursor: str | None = Field(description="Give it back to get the next page; null at the end.")


class DocumentWithJob(BaseModel):
    document: Document
    job: Job | None = Field(description="The job of the newest version; null once it is forgotten.")


class Chunks(BaseModel):
    chunks: list[Chunk]
    cursor: str | None


class Batches(BaseModel):
    batches: list[Batch]
    cursor: str | None


class BatchItems(BaseModel):
    items: list[BatchItem]
    cursor: str | None


class BatchChanged(BaseModel):
    batch: Batch
    documents: int = Field(description="How many documents are ingested again.")
    gathering: bool = Field(description="Whether what could not be gathered is tried again.")


class DocumentsDeleted(BaseModel):
    matched: int = Field(description="How many documents match.")
    deleted: int = Field(description="How many were deleted; 0 for a dry run.")


class SearchReply(BaseModel):
    job_id: str
    hits: list[Hit]
    collection_version: int
    timings_ms: dict[str, float]
    degraded: bool = Field(False, description="The reranker failed: the order is that of the search alone.")


class QuestionReply(BaseModel):
    job_id: str
    state: JobState
    answer: Answer | None = Field(description="Null while the job is not done.")
    error: Failure | None = None


class Jobs(BaseModel):
    jobs: list[Job]
    cursor: str | None


class JobsChanged(BaseModel):
    matched: int = Field(description="How many jobs match and can be changed.")
    changed: int = Field(description="How many were changed; 0 for a dry run.")


class Queues(BaseModel):
    queues: list[QueueStats]


class Workers(BaseModel):
    workers: list[WorkerInfo]


class Model(BaseModel):
    """In the shape of OpenAI's list, and what collections want to know."""

    id: str = Field(description="What a collection names as its embedding, reranking or image model.")
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "penstock"
    kind: Literal["embedding", "rerank", "image", "generator", "vision"]
    engine: str
    model: str = Field(description="The hub repository, the folder's name, or the provider's name for it.")
    dimensions: int = Field(description="Of its vectors; 0: none, or not known while no worker has loaded it.")
    device: str = Field(description="Where it runs: cpu, cuda …; `remote`; empty while no worker has loaded it.")
    memory_bytes: int = Field(description="What its weights take in one worker; 0 while none has loaded it.")
    loaded: bool = Field(description="A ready worker has it open now.")
    default: bool = Field(description="Used by collections that name none.")
    preloaded: bool
    workers: int = Field(description="How many ready workers had it loaded when they began.")


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Readiness(BaseModel):
    ready: bool
    checks: dict[str, str] = Field(description="By part: `ok`, or what is wrong.")


class Health(BaseModel):
    status: Literal["ok"]
    version: str
