"""Milvus: a server (`milvus+http://host:19530`, `milvus+https://…`), or Milvus Lite in a file (`milvus+lite:///file.db`).

Full-text search is Milvus's own BM25. Its tokenizers would cut our terms, so it is given their hashes as words. Milvus
counts how rare a term is by segments, so that scores differ a little from BM25 over the whole.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import grpc
import numpy as np
from pymilvus import DataType, Function, FunctionType, MilvusClient
from pymilvus.exceptions import MilvusException

from penstock.stores.base import Vector
from penstock.stores.bm25 import K1, B
from penstock.stores.engine import EngineIndex
from penstock.stores.options import StoresOptions
from penstock.stores.records import Listed, Match, Record, Wanted
from penstock.stores.where import All, AnyOf, HasAny, IsOneOf, NotThat, Where, key

LITE = "milvus+lite://"
MAX_TEXT = 65_535
MAX_KEYS = 4_096
MAX_ID = 255
TIMEOUT_S = 30
NO_ROW = "chunk_id == ''"


class MilvusIndex(EngineIndex):
    """Milvus Lite is for one process; a server for as many as there are."""

    exact_bm25: ClassVar[bool] = False
    errors: ClassVar[tuple[type[Exception], ...]] = (MilvusException, grpc.RpcError, OSError, ValueError)

    def __init__(self, url: str, options: StoresOptions) -> None:
        super().__init__(url, options)
        self._lite = url.startswith(LITE)
        self._client: Any = None
        self._turn: AbstractContextManager[Any] = threading.Lock() if self._lite else nullcontext()

    async def open(self) -> None:
        async with self._guard(f"reach Milvus at {self.url}"):
            self._client = await self._call(self._connect)
            await self.ping()

    def _connect(self) -> MilvusClient:
        if self._lite:
            return MilvusClient(self.url.removeprefix(LITE))
        token = self.options.api_key.get_secret_value()
        return MilvusClient(self.url.removeprefix("milvus+"), token=token, timeout=TIMEOUT_S)

    async def close(self) -> None:
        if self._client is not None:
            await self._call(self._client.close)
            self._client = None
        await super().close()

    async def _write(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """One at a time in Lite: two threads would both begin its log, and the second empties what the first wrote."""

        def write() -> None:
            with self._turn:
                function(*args, **kwargs)

        await self._call(write)

    async def ping(self) -> None:
        async with self._guard("ask Milvus for its collections"):
            await self._call(self._client.list_collections)

    async def _dimensions(self, collection_id: str) -> int | None:
        if not await self._call(self._client.has_collection, collection_id):
            return None
        fields = (await self._call(self._client.describe_collection, collection_id))["fields"]
        return next(int(field["params"]["dim"]) for field in fields if field["name"] == "dense")

    async def _create(self, collection_id: str, dimensions: int) -> None:
        await self._write(self._make, collection_id, dimensions)

    def _make(self, collection_id: str, dimensions: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("chunk_id", DataType.VARCHAR, max_length=MAX_ID, is_primary=True)
        words = {"tokenizer": "standard"}
        schema.add_field("terms", DataType.VARCHAR, max_length=MAX_TEXT, enable_analyzer=True, analyzer_params=words)
        schema.add_field("keys", DataType.ARRAY, element_type=DataType.INT64, max_capacity=MAX_KEYS)
        schema.add_field("metadata", DataType.VARCHAR, max_length=MAX_TEXT)
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=dimensions)
        schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(
            Function("bm25", FunctionType.BM25, input_field_names=["terms"], output_field_names=["sparse"])
        )
        indexes = self._client.prepare_index_params()
        indexes.add_index("dense", index_type="FLAT" if self._lite else "AUTOINDEX", metric_type="COSINE")
        indexes.add_index(
            "sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params={"bm25_k1": K1, "bm25_b": B}
        )
        self._client.create_collection(collection_id, schema=schema, index_params=indexes, consistency_level="Strong")

    async def _drop(self, collection_id: str) -> None:
        await self._write(self._client.drop_collection, collection_id)

    async def _put(self, collection_id: str, records: Sequence[Record]) -> None:
        rows = [
            {
                "chunk_id": record.chunk_id,
                "terms": _words(record.terms),
                "keys": list(record.keys[:MAX_KEYS]),
                "metadata": record.metadata,
                "dense": record.vector.tolist(),
            }
            for record in records
        ]
        await self._write(self._client.upsert, collection_id, rows)

    async def _remove(self, collection_id: str, where: Where) -> None:
        await self._write(self._client.delete, collection_id, filter=_expression(where))

    async def _list(self, collection_id: str, where: Where | None, limit: int, *, vectors: bool) -> list[Listed]:
        rows = await self._call(
            self._client.query,
            collection_id,
            filter=_expression(where),
            limit=limit,
            output_fields=["chunk_id", "metadata", *(["dense"] if vectors else [])],
        )
        return [
            Listed(
                chunk_id=row["chunk_id"],
                metadata=row["metadata"],
                vector=np.asarray(row["dense"], np.float32) if vectors else None,
            )
            for row in rows
        ]

    async def _nearest(self, collection_id: str, vector: Vector, wanted: Wanted) -> list[Match]:
        return await self._search_one(collection_id, vector.tolist(), "dense", "COSINE", wanted)

    async def _match(self, collection_id: str, terms: Sequence[str], wanted: Wanted) -> list[Match]:
        found = await self._search_one(collection_id, _words(terms), "sparse", "BM25", wanted)
        # Lite gives BM25 as a distance: less is better, and none of the terms is nought.
        scored = [Match(chunk_id=one.chunk_id, score=abs(one.score), metadata=one.metadata) for one in found]
        return sorted((one for one in scored if one.score > 0), key=lambda one: -one.score)

    async def _search_one(self, collection_id: str, query: Any, field: str, metric: str, wanted: Wanted) -> list[Match]:
        [hits] = await self._call(
            self._client.search,
            collection_id,
            data=[query],
            anns_field=field,
            limit=wanted.k,
            filter=_expression(wanted.where),
            output_fields=["metadata"] if wanted.metadata else [],
            search_params={"metric_type": metric},
        )
        return [
            Match(chunk_id=hit["chunk_id"], score=hit["distance"], metadata=hit["entity"].get("metadata", "{}"))
            for hit in hits
        ]

    async def _count(self, collection_id: str) -> int:
        [row] = await self._call(self._client.query, collection_id, filter="", output_fields=["count(*)"])
        return int(row["count(*)"])


def _words(terms: Sequence[str]) -> str:
    """The terms as words that every tokenizer leaves whole; those of a chunk beyond any usual size are left out."""
    return " ".join(f"t{key(term) & 0xFFFFFFFFFFFF:012x}" for term in terms)[:MAX_TEXT]


def _expression(where: Where | None) -> str:
    match where:
        case None:
            return ""
        case HasAny(()):
            return NO_ROW
        case HasAny(keys):
            return f"array_contains_any(keys, {list(keys)})"
        case IsOneOf(chunk_ids):
            return f"chunk_id in [{', '.join(map(_quote, chunk_ids))}]"
        case All(items):
            return " and ".join(f"({_expression(item)})" for item in items)
        case AnyOf(items):
            return " or ".join(f"({_expression(item)})" for item in items)
        case NotThat(item):
            return f"not ({_expression(item)})"


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
