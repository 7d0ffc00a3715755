"""Chroma: a folder (`chroma+local:///folder`, one process) or a server (`chroma+http://host:8000`, `chroma+https://…`).

Chroma ranks by vectors alone, so that full-text search is ours: the terms of a collection that is searched are held in
this process's memory. Over a server, another process's rows are seen within a minute at the latest.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import chromadb
import numpy as np
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from penstock.errors import DataError
from penstock.stores.base import Vector
from penstock.stores.engine import EngineIndex
from penstock.stores.options import StoresOptions
from penstock.stores.records import Listed, Match, Record, Wanted
from penstock.stores.side_text import FRESH_S
from penstock.stores.where import All, AnyOf, HasAny, IsOneOf, NotThat, Where

LOCAL = "chroma+local://"
EF_SEARCH = 200
EF_CONSTRUCTION = 200
NEIGHBOURS = 32
PAGE_ROWS = 2_000


class ChromaIndex(EngineIndex):
    fulltext: ClassVar[Literal["engine", "penstock"]] = "penstock"
    freshness_s: ClassVar[float] = FRESH_S
    errors: ClassVar[tuple[type[Exception], ...]] = (ChromaError, OSError, ValueError, RuntimeError)

    def __init__(self, url: str, options: StoresOptions) -> None:
        super().__init__(url, options)
        self._local = url.startswith(LOCAL)
        self._client: Any = None

    async def open(self) -> None:
        async with self._guard(f"reach Chroma at {self.url}"):
            self._client = await self._call(self._connect)
            await self.ping()

    def _connect(self) -> Any:
        settings = Settings(anonymized_telemetry=False)
        if self._local:
            folder = Path(self.url.removeprefix(LOCAL))
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as exc:
                raise DataError(f"The index folder {folder} cannot be used: {exc.strerror}") from exc
            return chromadb.PersistentClient(str(folder), settings=settings)
        place = urlsplit(self.url.removeprefix("chroma+"))
        key = self.options.api_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return chromadb.HttpClient(
            place.hostname or "localhost",
            place.port or 8000,
            ssl=place.scheme == "https",
            headers=headers,
            settings=settings,
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._call(self._disconnect)
            self._client = None
        await super().close()

    def _disconnect(self) -> None:
        """Over HTTP, Chroma itself leaves two sessions open."""
        clients = [] if self._local else [self._client, self._client._admin_client]
        sessions = [client._server._session for client in clients]
        self._client.close()
        for session in sessions:
            session.close()

    async def ping(self) -> None:
        async with self._guard("ask Chroma for its heartbeat"):
            await self._call(self._client.heartbeat)

    async def _dimensions(self, collection_id: str) -> int | None:
        try:
            found = await self._call(self._client.get_collection, collection_id, embedding_function=None)
        except NotFoundError:
            return None
        return int(found.metadata["dimensions"])

    async def _create(self, collection_id: str, dimensions: int) -> None:
        hnsw = {
            "space": "cosine",
            "ef_search": EF_SEARCH,
            "ef_construction": EF_CONSTRUCTION,
            "max_neighbors": NEIGHBOURS,
        }
        await self._call(
            self._client.get_or_create_collection,
            collection_id,
            configuration={"hnsw": hnsw},
            metadata={"dimensions": dimensions},
            embedding_function=None,
        )

    async def _drop(self, collection_id: str) -> None:
        with suppress(NotFoundError):
            await self._call(self._client.delete_collection, collection_id)

    async def _put(self, collection_id: str, records: Sequence[Record]) -> None:
        collection = await self._collection(collection_id)
        await self._call(
            collection.upsert,
            ids=[record.chunk_id for record in records],
            embeddings=np.stack([record.vector for record in records]),
            documents=[" ".join(record.terms) for record in records],
            metadatas=[{"keys": list(record.keys), "metadata": record.metadata} for record in records],
        )

    async def _remove(self, collection_id: str, where: Where) -> None:
        if where == HasAny(()):
            return
        collection = await self._collection(collection_id)
        await self._call(collection.delete, **_selection(where))

    async def _list(self, collection_id: str, where: Where | None, limit: int, *, vectors: bool) -> list[Listed]:
        collection = await self._collection(collection_id)
        include = ["metadatas", *(["embeddings"] if vectors else [])]
        found = await self._call(collection.get, **_selection(where), limit=limit, include=include)
        embeddings = found["embeddings"] if vectors else [None] * len(found["ids"])
        return [
            Listed(
                chunk_id=chunk_id,
                metadata=metadata["metadata"],
                vector=None if embedding is None else np.asarray(embedding, np.float32),
            )
            for chunk_id, metadata, embedding in zip(found["ids"], found["metadatas"], embeddings, strict=True)
        ]

    async def _nearest(self, collection_id: str, vector: Vector, wanted: Wanted) -> list[Match]:
        collection = await self._collection(collection_id)
        found = await self._call(
            collection.query,
            query_embeddings=[vector],
            n_results=wanted.k,
            where=None if wanted.where is None else _condition(wanted.where),
            include=["distances", *(["metadatas"] if wanted.metadata else [])],
        )
        ids, [distances] = found["ids"][0], found["distances"]
        metadatas = [one["metadata"] for one in found["metadatas"][0]] if wanted.metadata else ["{}"] * len(ids)
        return [
            Match(chunk_id=one, score=1 - distance, metadata=metadata)
            for one, distance, metadata in zip(ids, distances, metadatas, strict=True)
        ]

    async def _count(self, collection_id: str) -> int:
        collection = await self._collection(collection_id)
        return int(await self._call(collection.count))

    async def _records(self, collection_id: str) -> list[Record]:
        collection = await self._collection(collection_id)
        records: list[Record] = []
        while True:
            page = await self._call(
                collection.get, limit=PAGE_ROWS, offset=len(records), include=["documents", "metadatas"]
            )
            records += [
                Record(
                    chunk_id=chunk_id,
                    vector=np.empty(0, np.float32),
                    terms=document.split(),
                    keys=metadata["keys"],
                    metadata=metadata["metadata"],
                )
                for chunk_id, document, metadata in zip(page["ids"], page["documents"], page["metadatas"], strict=True)
            ]
            if len(page["ids"]) < PAGE_ROWS:
                return records

    async def _collection(self, collection_id: str) -> Any:
        return await self._call(self._client.get_collection, collection_id, embedding_function=None)


def _selection(where: Where | None) -> dict[str, Any]:
    if isinstance(where, IsOneOf):
        return {"ids": list(where.chunk_ids)}
    return {} if where is None else {"where": _condition(where)}


def _condition(where: Where) -> dict[str, Any]:
    """Chroma knows no `not` around a condition, so that it is carried down to the keys."""
    match where:
        case HasAny(keys):
            return _one_of("$or", [{"keys": {"$contains": one}} for one in keys], empty=False)
        case All(items):
            return _one_of("$and", [_condition(item) for item in items], empty=True)
        case AnyOf(items):
            return _one_of("$or", [_condition(item) for item in items], empty=False)
        case NotThat(HasAny(keys)):
            return _one_of("$and", [{"keys": {"$not_contains": one}} for one in keys], empty=True)
        case NotThat(All(items)):
            return _condition(AnyOf(tuple(NotThat(item) for item in items)))
        case NotThat(AnyOf(items)):
            return _condition(All(tuple(NotThat(item) for item in items)))
        case NotThat(NotThat(item)):
            return _condition(item)
    raise AssertionError(f"{where} stands alone")


def _one_of(operator: str, conditions: list[dict[str, Any]], *, empty: bool) -> dict[str, Any]:
    if len(conditions) == 1:
        return conditions[0]
    # Every row has metadata, so that this lets through all or none.
    return {operator: conditions} if conditions else {"metadata": {"$ne" if empty else "$eq": ""}}
