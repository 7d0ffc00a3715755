"""LanceDB in a folder: crash-safe commits, several processes, full-text and vector indexes built in the background."""

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from penstock.errors import DataError, NotFound, Unavailable
from penstock.filters import Filter
from penstock.stores.analyzer import Analyzer
from penstock.stores.base import IndexQuery, IndexRow, IndexStore, LaneHits
from penstock.stores.lance_copy import LanceCopy
from penstock.stores.lance_engine import FTS, lancedb
from penstock.stores.lance_errors import lance_errors
from penstock.stores.lance_maintenance import is_due, optimise, prewarm
from penstock.stores.lance_rows import schema, to_arrow
from penstock.stores.lance_table import LanceTable
from penstock.stores.options import StoresOptions
from penstock.stores.vectors import check_dimensions

logger = logging.getLogger(__name__)

# The terms are ours already (see `analyzer`): the engine splits at white space and does nothing else.
_TERMS = FTS(
    base_tokenizer="whitespace",
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
    max_token_length=None,
)


class LanceIndex(IndexStore):
    """One table a collection. Writers of one collection take turns within the process; searches never wait for them."""

    durable: ClassVar[bool] = True
    atomic: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    shared: ClassVar[bool] = True

    def __init__(self, url: str, options: StoresOptions) -> None:
        self._folder = Path(url.removeprefix("lancedb://"))
        self._options = options
        self._analyzer = Analyzer()
        self.tables: dict[str, LanceTable] = {}
        self._opening = asyncio.Lock()
        self._database: Any = None
        self._cpu = ThreadPoolExecutor(max_workers=1, thread_name_prefix="penstock-index")
        self._copies = ThreadPoolExecutor(max_workers=1, thread_name_prefix="penstock-copy")
        self._searches = ThreadPoolExecutor(options.search_threads, thread_name_prefix="penstock-search")

    async def open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise DataError(f"The index folder {self._folder} cannot be used: {exc.strerror}") from exc
        session = lancedb.Session(
            index_cache_size_bytes=self._options.cache_mb << 20,
            metadata_cache_size_bytes=self._options.metadata_cache_mb << 20,
        )
        with lance_errors(f"open the index in {self._folder}"):
            self._database = await lancedb.connect_async(
                str(self._folder), read_consistency_interval=timedelta(0), session=session
            )
            for name in (await self._database.list_tables()).tables:
                try:
                    if table := await self._find(name):
                        await prewarm(table.handle)
                except DataError as exc:  # whoever asks for it is told; the others are not the worse for it
                    logger.warning("%s", exc.message)

    async def close(self) -> None:
        for table in self.tables.values():
            await table.close()
        self.tables.clear()
        for executor in (self._cpu, self._copies, self._searches):
            executor.shutdown(wait=True)
        if self._database is not None:
            self._database.close()
            self._database = None

    async def ping(self) -> None:
        if not self._folder.is_dir():
            raise Unavailable(f"The index folder {self._folder} is gone", code="index_unavailable")
        with lance_errors("list the index's collections"):
            await self._database.list_tables(limit=1)

    async def create(self, collection_id: str, dimensions: int) -> None:
        async with self._opening:
            table = await self._find(collection_id)
            if table is None:
                with lance_errors(f"create collection {collection_id}"):
                    made = await self._database.create_table(
                        collection_id, schema=schema(dimensions, identity=uuid4().hex), exist_ok=True
                    )
                    table = await self._keep(collection_id, made)
        if table.dimensions != dimensions:
            raise DataError(
                f"Collection {collection_id} holds vectors of {table.dimensions} dimensions, not {dimensions}; "
                "reindex it to change its embedding model"
            )

    async def drop(self, collection_id: str) -> None:
        async with self._opening:
            table = self.tables.pop(collection_id, None)
            if table is not None:
                await table.close()
            with lance_errors(f"drop collection {collection_id}"):
                await self._database.drop_table(collection_id, ignore_missing=True)

    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        table = await self._table(collection_id)
        if table is None:
            raise NotFound(f"The index has no collection {collection_id}; create it first")
        if not rows:
            return
        loop = asyncio.get_running_loop()
        batch = await loop.run_in_executor(self._cpu, to_arrow, rows, table.dimensions, self._analyzer)
        with lance_errors(f"write to collection {collection_id}"):
            await table.upsert(batch)

    async def delete(
        self,
        collection_id: str,
        *,
        version_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        where: Filter | None = None,
    ) -> None:
        table = await self._table(collection_id)
        if table is None:
            return
        with lance_errors(f"remove rows of collection {collection_id}"):
            await table.delete(version_ids, document_ids, where)

    async def search(self, collection_id: str, query: IndexQuery) -> LaneHits:
        table = await self._table(collection_id)
        if table is None:
            return LaneHits()
        if query.vector is not None:
            check_dimensions(query.vector, table.dimensions)
        terms = [] if query.text is None else self._analyzer.query_terms(query.text)
        with lance_errors(f"search collection {collection_id}"):
            return await table.search(query, terms)

    async def count(self, collection_id: str) -> int:
        table = await self._table(collection_id)
        if table is None:
            return 0
        with lance_errors(f"count collection {collection_id}"):
            return int(await table.handle.count_rows())

    async def optimise(self, collection_id: str | None = None) -> None:
        names = list(self.tables) if collection_id is None else [collection_id]
        for name in names:
            table = await self._table(name)
            if table is None:
                continue
            if collection_id is not None or await is_due(table, self._options):
                with lance_errors(f"optimise collection {name}"):
                    await optimise(table, self._options)
                table.copy.begin(table.dimensions)  # compaction moved the rows: they are copied anew
            if collection_id is not None:
                await table.copy.done()
            await table.copy.settle()

    async def _table(self, collection_id: str) -> LanceTable | None:
        """The table as it is now, or None: another process may have dropped it, made it, or made it anew."""
        table = self.tables.get(collection_id)
        if table is not None and self._place(collection_id).is_dir():
            await table.refresh()
            return table
        async with self._opening:
            return await self._find(collection_id)

    async def _find(self, collection_id: str) -> LanceTable | None:
        exists = _holds_a_table(self._place(collection_id))
        table = self.tables.get(collection_id)
        if table is not None and not exists:
            await self.tables.pop(collection_id).close()
            return None
        if table is not None or not exists:
            return table
        with lance_errors(f"open collection {collection_id}"):
            return await self._keep(collection_id, await self._database.open_table(collection_id))

    async def _keep(self, collection_id: str, handle: Any) -> LanceTable:
        # An index of nothing made at birth: rows that it does not cover yet are split by its rules too.
        if not await handle.list_indices():
            await handle.create_index("terms", config=_TERMS)
        copy = LanceCopy(handle, self._place(collection_id), self._copies, self._fits)
        table = LanceTable(handle, self._options, copy, self._searches)
        await table.refresh()
        copy.begin(table.dimensions)
        self.tables[collection_id] = table
        return table

    def _fits(self, more: int) -> bool:
        held = sum(table.copy.bytes for table in self.tables.values())
        return held + more < self._options.memory_mb << 20

    def _place(self, collection_id: str) -> Path:
        return self._folder / f"{collection_id}.lance"


def _holds_a_table(folder: Path) -> bool:
    """Whether a version of it was ever written; a disk that was full may have left the folder alone."""
    try:
        with os.scandir(folder / "_versions") as versions:
            return next(versions, None) is not None
    except FileNotFoundError:
        return False
