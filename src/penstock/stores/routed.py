"""Several engines behind one contract, so that a collection can move from one to another: `qdrant.idx_01` is what the
engine named `qdrant` calls `idx_01`; an id without a name before it is the main engine's."""

import asyncio
from collections.abc import Mapping, Sequence

from penstock.errors import ConfigError
from penstock.filters import Filter
from penstock.stores.base import IndexQuery, IndexRow, IndexStore, LaneHits


class RoutedIndex(IndexStore):
    """Opens and closes all its engines. `others` are by name; what it says of itself is what the main one says."""

    def __init__(self, main: IndexStore, others: Mapping[str, IndexStore]) -> None:
        self._main = main
        self._others = others
        for flag in ("durable", "atomic", "exact", "shared", "exact_bm25", "freshness_s"):
            setattr(self, flag, getattr(main, flag))

    def _route(self, collection_id: str) -> tuple[IndexStore, str]:
        name, dot, inner = collection_id.rpartition(".")
        if not dot:
            return self._main, collection_id
        if name not in self._others:
            raise ConfigError(
                f"A collection lives in the index engine {name!r}, which the settings do not name: set "
                f"PENSTOCK_INDEX_ENGINES__{name.upper()}, or reindex the collection into another one."
            )
        return self._others[name], inner

    async def open(self) -> None:
        opened: list[IndexStore] = []
        try:
            for store in (self._main, *self._others.values()):
                await store.open()
                opened.append(store)
        except BaseException:
            for store in reversed(opened):
                await store.close()
            raise

    async def close(self) -> None:
        for store in (*self._others.values(), self._main):
            await store.close()

    async def ping(self) -> None:
        await asyncio.gather(*(store.ping() for store in (self._main, *self._others.values())))

    async def create(self, collection_id: str, dimensions: int) -> None:
        store, inner = self._route(collection_id)
        await store.create(inner, dimensions)

    async def drop(self, collection_id: str) -> None:
        store, inner = self._route(collection_id)
        await store.drop(inner)

    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        store, inner = self._route(collection_id)
        await store.upsert(inner, rows)

    async def delete(
        self,
        collection_id: str,
        *,
        version_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        where: Filter | None = None,
    ) -> None:
        store, inner = self._route(collection_id)
        await store.delete(inner, version_ids=version_ids, document_ids=document_ids, where=where)

    async def search(self, collection_id: str, query: IndexQuery) -> LaneHits:
        store, inner = self._route(collection_id)
        return await store.search(inner, query)

    async def count(self, collection_id: str) -> int:
        store, inner = self._route(collection_id)
        return await store.count(inner)

    async def optimise(self, collection_id: str | None = None) -> None:
        if collection_id is not None:
            store, inner = self._route(collection_id)
            await store.optimise(inner)
            return
        for store in (self._main, *self._others.values()):
            await store.optimise()
