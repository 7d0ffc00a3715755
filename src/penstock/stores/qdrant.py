"""Qdrant: a server (`qdrant+http://host:6333`, `qdrant+https://…`), or its client's local mode in a folder.

Full-text search is Qdrant's own, over sparse vectors: the engine counts how rare a term is, and we say how much it
weighs in a row, with BM25's formula and AVERAGE_TERMS for the average length. So scores differ from BM25's where rows
are much longer or shorter than that.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client import models as qd
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from penstock.stores.base import Vector
from penstock.stores.bm25 import K1, B
from penstock.stores.engine import EngineIndex
from penstock.stores.options import StoresOptions
from penstock.stores.records import Listed, Match, Record, Wanted
from penstock.stores.where import All, AnyOf, HasAny, IsOneOf, NotThat, Where, key

AVERAGE_TERMS = 160
"""Index terms of a chunk of the usual size: about 130 English words."""
TERM_SPACE = 1 << 32
DENSE = "dense"
TERMS = "terms"
LOCAL = "qdrant+local://"
TIMEOUT_S = 30


class QdrantIndex(EngineIndex):
    """`qdrant+local:///folder` is for tests and trials: one process, and slow beyond some ten thousand rows."""

    exact_bm25: ClassVar[bool] = False
    errors: ClassVar[tuple[type[Exception], ...]] = (ApiException, ResponseHandlingException, OSError, ValueError)

    def __init__(self, url: str, options: StoresOptions) -> None:
        super().__init__(url, options)
        self._local = url.startswith(LOCAL)
        self._client: Any = None
        if self._local:  # neither its memory nor its files are made for several threads
            self._pool = self._cpu

    async def open(self) -> None:
        async with self._guard(f"reach Qdrant at {self.url}"):
            self._client = await self._call(self._connect)
            await self.ping()

    def _connect(self) -> QdrantClient:
        if self._local:
            folder = self.url.removeprefix(LOCAL)
            return QdrantClient(path=folder) if folder else QdrantClient(":memory:")
        return QdrantClient(
            url=self.url.removeprefix("qdrant+"),
            api_key=self.options.api_key.get_secret_value() or None,
            timeout=TIMEOUT_S,
            check_compatibility=False,
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._call(self._client.close)
            self._client = None
        await super().close()

    async def ping(self) -> None:
        async with self._guard("ask Qdrant for its collections"):
            await self._call(self._client.get_collections)

    async def _dimensions(self, collection_id: str) -> int | None:
        if not await self._call(self._client.collection_exists, collection_id):
            return None
        info = await self._call(self._client.get_collection, collection_id)
        return int(info.config.params.vectors[DENSE].size)

    async def _create(self, collection_id: str, dimensions: int) -> None:
        await self._call(
            self._client.create_collection,
            collection_id,
            vectors_config={DENSE: qd.VectorParams(size=dimensions, distance=qd.Distance.COSINE)},
            sparse_vectors_config={TERMS: qd.SparseVectorParams(modifier=qd.Modifier.IDF)},
        )
        if not self._local:
            await self._call(
                self._client.create_payload_index, collection_id, "keys", qd.PayloadSchemaType.INTEGER, wait=True
            )

    async def _drop(self, collection_id: str) -> None:
        await self._call(self._client.delete_collection, collection_id)

    async def _put(self, collection_id: str, records: Sequence[Record]) -> None:
        points = [
            qd.PointStruct(
                id=_point(record.chunk_id),
                vector={DENSE: record.vector.tolist(), TERMS: _sparse(record.terms)},
                payload={"chunk_id": record.chunk_id, "keys": list(record.keys), "metadata": record.metadata},
            )
            for record in records
        ]
        await self._call(self._client.upsert, collection_id, points, wait=True)

    async def _remove(self, collection_id: str, where: Where) -> None:
        selector = qd.FilterSelector(filter=_filter(where))
        await self._call(self._client.delete, collection_id, selector, wait=True)

    async def _list(self, collection_id: str, where: Where | None, limit: int, *, vectors: bool) -> list[Listed]:
        points, _ = await self._call(
            self._client.scroll,
            collection_id,
            scroll_filter=_filter(where),
            limit=limit,
            with_payload=["chunk_id", "metadata"],
            with_vectors=[DENSE] if vectors else False,
        )
        return [
            Listed(
                chunk_id=point.payload["chunk_id"],
                metadata=point.payload["metadata"],
                vector=np.asarray(point.vector[DENSE], np.float32) if vectors else None,
            )
            for point in points
        ]

    async def _nearest(self, collection_id: str, vector: Vector, wanted: Wanted) -> list[Match]:
        return await self._query(collection_id, vector.tolist(), DENSE, wanted)

    async def _match(self, collection_id: str, terms: Sequence[str], wanted: Wanted) -> list[Match]:
        counts = Counter(map(_number, terms))
        query = qd.SparseVector(indices=list(counts), values=[float(count) for count in counts.values()])
        return await self._query(collection_id, query, TERMS, wanted)

    async def _query(self, collection_id: str, query: Any, using: str, wanted: Wanted) -> list[Match]:
        found = await self._call(
            self._client.query_points,
            collection_id,
            query=query,
            using=using,
            query_filter=_filter(wanted.where),
            limit=wanted.k,
            with_payload=["chunk_id", "metadata"] if wanted.metadata else ["chunk_id"],
        )
        return [
            Match(chunk_id=one.payload["chunk_id"], score=one.score, metadata=one.payload.get("metadata", "{}"))
            for one in found.points
        ]

    async def _count(self, collection_id: str) -> int:
        return int((await self._call(self._client.count, collection_id, exact=True)).count)


def _point(chunk_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, chunk_id))


def _number(term: str) -> int:
    return key(term) % TERM_SPACE


def _sparse(terms: Sequence[str]) -> qd.SparseVector:
    """A row's terms with the part of BM25 that is about the row."""
    counts = Counter(map(_number, terms))
    length = K1 * (1 - B + B * len(terms) / AVERAGE_TERMS)
    weights = [count * (K1 + 1) / (count + length) for count in counts.values()]
    return qd.SparseVector(indices=list(counts), values=weights)


def _filter(where: Where | None) -> qd.Filter | None:
    match where:
        case None:
            return None
        case HasAny(keys):
            return qd.Filter(must=[qd.FieldCondition(key="keys", match=qd.MatchAny(any=list(keys)))])
        case IsOneOf(chunk_ids):
            return qd.Filter(must=[qd.HasIdCondition(has_id=[_point(one) for one in chunk_ids])])
        case All(items):
            return qd.Filter(must=[_condition(item) for item in items])
        case AnyOf(items):
            return qd.Filter(should=[_condition(item) for item in items])
        case NotThat(item):
            return qd.Filter(must_not=[_condition(item)])


def _condition(where: Where) -> qd.Filter:
    found = _filter(where)
    assert found is not None
    return found
