"""What passes between `engine` and the engines below it."""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.stores.base import Vector
from penstock.stores.where import Where

BATCH_ROWS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A row as an engine keeps it. `vector` is (dimensions,) float32 of length 1; `keys` are distinct signed 64-bit

    numbers, two at least; `metadata` is a JSON object, to be given back as it came.
    """

    chunk_id: str
    vector: Vector
    terms: Sequence[str]
    keys: Sequence[int]
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many a lane is to return, of which rows, and whether with their metadata."""

    k: int
    where: Where | None = None
    metadata: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A row that a lane found: `score` is the cosine or BM25."""

    chunk_id: str
    score: float
    metadata: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A row that was asked for by a condition; `vector` only when it was asked for."""

    chunk_id: str
    metadata: str = "{}"
    vector: Vector | None = None
