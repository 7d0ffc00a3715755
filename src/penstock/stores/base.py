"""The contract of the index: vectors and full-text postings of chunks, derived from the ledger and rebuilt from it.

Guarantees of every engine:
- `upsert` and `delete` are on disk when they return (where the engine has a disk), and every later `search` and `count`
  of this process sees them; other processes see them within `freshness_s`. One that fails changed nothing where the
  engine is `atomic`, else perhaps a part; the same call again mends it.
- A chunk id is there once, however often and by however many tasks it is upserted; the last write wins.
- A collection that was never created, or was dropped, is empty for `search`, `count` and `delete`; `upsert` into it is
  `NotFound`.
- Cosine and BM25 are the real ones: the same rows give the same scores in every engine, but for approximate vector
  search on large collections (see `exact`) and BM25 of rows between a write and the next `optimise`.
- The index knows nothing of versions that are visible or not: callers ask the ledger.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from penstock.filters import Filter
from penstock.types import JSON

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """A chunk as the index keeps it. `vector` is (dimensions,) float32 of length 1;

    `text` is what full-text search sees; `metadata` is what filters see: the document's, usually.
    """

    chunk_id: str
    document_id: str
    version_id: str
    text: str
    vector: Vector
    metadata: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexQuery:
    """The `k` best rows of each lane that is asked for: by `vector` (of length 1), by `text`, or both.

    `filter` is applied before the ranking: every row that passes can be found.
    """

    k: int
    vector: Vector | None = None
    text: str | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row that a lane found, with its raw scores: cosine in [-1, 1] and BM25 ≥ 0; None where a lane was not asked.

    A row that only full-text found has its true cosine. A row that only the vector found has BM25 0 when it shares no
    term with the query or the list was cut before it: it scores at most `LaneHits.fulltext_floor`.
    """

    chunk_id: str
    dense: float | None = None
    fulltext: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneHits:
    """What both lanes found, in no particular order, and what the collection looks like from this question.

    `dense_mean` and `dense_std` are of the query's cosine to the rows of the collection (all of a small one, else a
    random sample). `fulltext_floor` is the lowest BM25 that still made the list when the list is full, else 0.
    """

    candidates: Sequence[Candidate] = ()
    rows: int = 0
    dense_mean: float = 0.0
    dense_std: float = 0.0
    fulltext_floor: float = 0.0


class IndexStore(ABC):
    """See the module's docstring for the guarantees. Opened and closed as an async context manager."""

    durable: ClassVar[bool]
    """Rows outlive the process."""
    atomic: ClassVar[bool] = False
    """`upsert` and `delete` happen whole or not at all."""
    exact: ClassVar[bool]
    """Vector search is exact at every size; else approximate above some thousand rows."""
    shared: ClassVar[bool]
    """Several processes may open the same index at once."""
    exact_bm25: ClassVar[bool] = True
    """BM25's scores are the very ones of `bm25`; else close to them, in much the same order."""
    freshness_s: ClassVar[float] = 0.0
    """How long another process's write may take to be seen."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Connects. `DataError` when the place cannot be used, `Unavailable` when it does not answer."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def ping(self) -> None:
        """`Unavailable` when the engine does not answer."""

    @abstractmethod
    async def create(self, collection_id: str, dimensions: int) -> None:
        """Makes room for a collection. No effect when it is there; `DataError` when with other dimensions."""

    @abstractmethod
    async def drop(self, collection_id: str) -> None:
        """Takes a collection away with all its rows. No effect when it is not there."""

    @abstractmethod
    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        """Writes rows by chunk id in one commit; few large calls are far faster than many small ones.

        `NotFound` (collection), `DataError` when a vector's dimensions are wrong or it is not finite, `StorageFull`.
        """

    @abstractmethod
    async def delete(
        self,
        collection_id: str,
        *,
        version_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        where: Filter | None = None,
    ) -> None:
        """Deletes every row of these versions, of these documents, and every one that passes the filter."""

    @abstractmethod
    async def search(self, collection_id: str, query: IndexQuery) -> LaneHits:
        """Both lanes' best rows. `DataError` when the vector's dimensions are not the collection's."""

    @abstractmethod
    async def count(self, collection_id: str) -> int:
        """The number of rows."""

    @abstractmethod
    async def optimise(self, collection_id: str | None = None) -> None:
        """Compacts, builds and extends indexes, wipes deleted rows from disk. Searches and writes go on meanwhile.

        With a collection: now, as after a bulk load. Without: a round of upkeep over those that were written to since
        the last, to be called every few seconds by whoever keeps the store open; if nobody does, searches slow down.
        """
