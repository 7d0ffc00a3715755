"""What callers get, for the documentation: the records of `penstock.types` and what stands around them.

Answers are written straight from the records (`json_io.reply`); these models only describe them.
"""

from typing import Literal

from pydantic import BaseModel, Field

from penstock.jobs.base import QueueStats
from penstock.types import Answer, Chunk, Collection, Document, Failure, Hit, Job, JobState, WorkerInfo


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


class Readiness(BaseModel):
    ready: bool
    checks: dict[str, str] = Field(description="By part: `ok`, or what is wrong.")


class Health(BaseModel):
    status: Literal["ok"]
    version: str
