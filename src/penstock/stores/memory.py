"""The index in this process's memory: exact, and the reference that other engines are tested against."""

import heapq
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from penstock.errors import DataError, NotFound
from penstock.filters import Filter, matches
from penstock.stores.analyzer import Analyzer
from penstock.stores.base import Candidate, IndexQuery, IndexRow, IndexStore, LaneHits, Vector
from penstock.stores.bm25 import Postings
from penstock.stores.options import StoresOptions
from penstock.stores.vectors import check_dimensions, stack


class _Collection:
    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.rows: dict[str, IndexRow] = {}
        self.postings = Postings()
        self._matrix: tuple[list[str], Vector] | None = None

    def put(self, row: IndexRow, terms: Sequence[str]) -> None:
        self.rows[row.chunk_id] = row
        self.postings.add(row.chunk_id, terms)
        self._matrix = None

    def remove(self, chunk_id: str) -> None:
        del self.rows[chunk_id]
        self.postings.remove(chunk_id)
        self._matrix = None

    def cosines(self, vector: Vector) -> dict[str, float]:
        if self._matrix is None:
            self._matrix = list(self.rows), stack([row.vector for row in self.rows.values()], self.dimensions)
        keys, matrix = self._matrix
        return dict(zip(keys, (matrix @ vector).tolist(), strict=True))


class MemoryIndex(IndexStore):
    """Rows live until the store is closed."""

    durable: ClassVar[bool] = False
    atomic: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    shared: ClassVar[bool] = False

    def __init__(self, url: str = "memory://", options: StoresOptions | None = None) -> None:  # noqa: ARG002
        self._collections: dict[str, _Collection] = {}
        self._analyzer = Analyzer()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._collections.clear()

    async def ping(self) -> None:
        pass

    async def create(self, collection_id: str, dimensions: int) -> None:
        collection = self._collections.setdefault(collection_id, _Collection(dimensions))
        if collection.dimensions != dimensions:
            raise DataError(
                f"Collection {collection_id} holds vectors of {collection.dimensions} dimensions, not {dimensions}; "
                "reindex it to change its embedding model"
            )

    async def drop(self, collection_id: str) -> None:
        self._collections.pop(collection_id, None)

    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        collection = self._collections.get(collection_id)
        if collection is None:
            raise NotFound(f"The index has no collection {collection_id}; create it first")
        stack([row.vector for row in rows], collection.dimensions)
        for row in rows:
            collection.put(row, self._analyzer.index_terms(row.text))

    async def delete(
        self,
        collection_id: str,
        *,
        version_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        where: Filter | None = None,
    ) -> None:
        collection = self._collections.get(collection_id)
        if collection is None:
            return
        versions, documents = frozenset(version_ids), frozenset(document_ids)
        for row in list(collection.rows.values()):
            passes = where is not None and matches(where, row.metadata)
            if passes or row.version_id in versions or row.document_id in documents:
                collection.remove(row.chunk_id)

    async def search(self, collection_id: str, query: IndexQuery) -> LaneHits:
        collection = self._collections.get(collection_id)
        if collection is None or not collection.rows:
            return LaneHits()

        def allowed(key: str) -> bool:
            return matches(query.filter, collection.rows[key].metadata)

        cosines: dict[str, float] = {}
        if query.vector is not None:
            check_dimensions(query.vector, collection.dimensions)
            cosines = collection.cosines(query.vector)
        scores = {} if query.text is None else collection.postings.scores(self._analyzer.query_terms(query.text))
        dense_best = heapq.nlargest(query.k, filter(allowed, cosines), key=cosines.__getitem__)
        text_best = heapq.nlargest(query.k, filter(allowed, scores), key=scores.__getitem__)
        spread = np.fromiter(cosines.values(), np.float32)
        return LaneHits(
            candidates=tuple(
                Candidate(
                    chunk_id=key,
                    dense=cosines.get(key),
                    fulltext=None if query.text is None else scores.get(key, 0.0),
                )
                for key in dict.fromkeys((*dense_best, *text_best))
            ),
            rows=len(collection.rows),
            dense_mean=float(spread.mean()) if cosines else 0.0,
            dense_std=float(spread.std()) if cosines else 0.0,
            fulltext_floor=scores[text_best[-1]] if len(text_best) == query.k else 0.0,
        )

    async def count(self, collection_id: str) -> int:
        collection = self._collections.get(collection_id)
        return len(collection.rows) if collection else 0

    async def optimise(self, collection_id: str | None = None) -> None:
        pass
