"""What travels through the job store: one kind a verb, one record a payload.

The api writes these and the worker reads them back with `decode`, which checks every field: a payload is never trusted.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeVar

import msgspec

from penstock.errors import InvalidInput
from penstock.types import JSON, Hit

T = TypeVar("T")


class Kind(StrEnum):
    INGEST = "ingest"
    SEARCH = "search"
    QUESTION = "question"
    REINDEX = "reindex"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRequest:
    """Parse, chunk, embed and index one document version. The job's result: `{"chunks": n, "pages": n}`."""

    version_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """Gather a batch: unpack, fetch and walk what it names. The job's result: `{"items": n}`."""

    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """Find passages. `filter` is in the language of `penstock.filters`. The job's result is a `SearchResult`.

    With an image also the pictures that look like it, and these alone where the query is empty."""

    collection: str
    query: str = ""
    limit: int = 10
    mode: Literal["fused", "dense", "fulltext"] = "fused"
    filter: JSON = None
    image_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    hits: list[Hit]
    collection_version: int
    timings_ms: dict[str, float]
    degraded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRequest:
    """Answer a question from a collection. The job's result is an `Answer`; its text also comes as `delta` events
    (`{"text": "…"}`) when `stream` is set. `limit` is the number of passages that the answer may draw on."""

    collection: str
    question: str
    limit: int = 8
    filter: JSON = None
    stream: bool = False
    image_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexRequest:
    """Fill a generation of a collection's index from the ledger, then search there. `chunks`: how many, about.

    The job's result: `{"chunks": n, "switched": true}`."""

    generation_id: str
    chunks: int = 0


def encode(request: object) -> JSON:
    """A record as plain JSON values."""
    return msgspec.to_builtins(request)


def decode(record_type: type[T], payload: JSON) -> T:
    """The record that a payload says; `InvalidInput` when it does not fit."""
    try:
        return msgspec.convert(payload, type=record_type)
    except msgspec.ValidationError as exc:
        raise InvalidInput(f"The job's payload is not a valid {record_type.__name__}: {exc}") from exc
