"""Merges the index writes of all documents in flight into few large commits."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from penstock.stores.base import IndexRow, IndexStore

REST = 8
LONGEST_REST_S = 0.5
ENOUGH_ROWS = 1024
"""Index commits take a ninth of the time at most, and a document waits half a second longer for one at most."""


@dataclass(slots=True)
class _Batch:
    """What one commit will hold: the rows of several callers, and the future they all wait for."""

    written: asyncio.Future[None]
    rows: list[IndexRow] = field(default_factory=list)
    create: bool = False
    enough: asyncio.Event = field(default_factory=asyncio.Event)


class IndexWriter:
    """Group commit for the index: while one commit of a collection runs, everything that arrives becomes the next.

    A lone write goes at once. After a commit the next one waits for REST times as long as it took, or for ENOUGH_ROWS:
    a commit of one row costs nearly what one of a hundred does, and this leaves the processor to the model. Memory is
    bounded by the callers: each waits for its own rows. A failed commit fails every caller in it; rows have
    deterministic ids, so that a retry is harmless.
    """

    def __init__(self, index: IndexStore) -> None:
        self._index = index
        self._pending: dict[str, _Batch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is being written; nobody may write any more."""
        await asyncio.gather(*self._tasks.values())

    async def write(self, collection_id: str, rows: Sequence[IndexRow], *, create: bool = False) -> None:
        """Returns once the rows are committed. A caller that is cancelled meanwhile leaves its rows in the commit.

        `create`: makes the collection where there is none; another process may have dropped it to reindex it.
        """
        if not rows:
            return
        batch = self._next(collection_id)
        batch.rows.extend(rows)
        batch.create |= create
        if len(batch.rows) >= ENOUGH_ROWS:
            batch.enough.set()
        if collection_id not in self._tasks:
            self._tasks[collection_id] = asyncio.create_task(self._drain(collection_id), name=f"index {collection_id}")
        await asyncio.shield(batch.written)

    def _next(self, collection_id: str) -> _Batch:
        batch = self._pending.get(collection_id)
        if batch is None:
            batch = self._pending[collection_id] = _Batch(asyncio.get_running_loop().create_future())
        return batch

    async def _drain(self, collection_id: str) -> None:
        """Commits what is pending, until nothing came while we rested."""
        clock = asyncio.get_running_loop().time
        try:
            while (batch := self._pending.pop(collection_id, None)) is not None:
                started = clock()
                await self._commit(collection_id, batch)
                rest_s = min(REST * (clock() - started), LONGEST_REST_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._next(collection_id).enough.wait()
                if not self._pending[collection_id].rows:
                    del self._pending[collection_id]
        finally:
            del self._tasks[collection_id]

    async def _commit(self, collection_id: str, batch: _Batch) -> None:
        try:
            if batch.create:
                await self._index.create(collection_id, len(batch.rows[0].vector))
            await self._index.upsert(collection_id, batch.rows)
        except Exception as exc:  # handed to every caller of this commit
            batch.written.set_exception(exc)
            batch.written.exception()  # callers that were cancelled will not fetch it
        else:
            batch.written.set_result(None)
