"""The base of engines that are databases of their own: all bookkeeping is here, an engine fills in nine small hooks.

Penstock cuts texts into terms, turns metadata into keys (see `where`) and decides what a filter means, so that all
engines agree; an engine stores records and answers four questions about them. `docs/extending.md` shows a whole one.

A call that ends in an error may have written some of its rows: chunk ids are deterministic, so that writing again
mends it, and the ledger shows no version before all of its rows are written.
"""

import asyncio
import functools
import json
import math
import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

import numpy as np

from penstock.errors import DataError, NotFound, PenstockError, Unavailable
from penstock.filters import Filter, matches
from penstock.stores.analyzer import Analyzer
from penstock.stores.base import Candidate, IndexQuery, IndexRow, IndexStore, LaneHits, Vector
from penstock.stores.options import StoresOptions
from penstock.stores.records import BATCH_ROWS, Listed, Match, Record, Wanted
from penstock.stores.side_text import SideText
from penstock.stores.vectors import check_dimensions, stack
from penstock.stores.where import IsOneOf, Where, keys_of, lot, narrow, of_versions

P = ParamSpec("P")
T = TypeVar("T")

IDS_A_DELETE = 500
SAMPLE_ROWS = 512
SAMPLE_AGE_S = 10.0
ROOM_AGE_S = 5.0
MAX_K = 16_384


@dataclass(frozen=True, slots=True)
class _Sample:
    rows: int
    writes: int
    taken_at: float
    vectors: Vector


class EngineIndex(IndexStore):
    """See the module's docstring. Hooks raise `Missing` for a collection that is not there, and may raise whatever
    `errors` lists: it reaches the caller as `Unavailable`."""

    durable: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    shared: ClassVar[bool] = True
    fulltext: ClassVar[Literal["engine", "penstock"]] = "engine"
    """Who ranks by words: the engine (`_match`), or Penstock, in this process's memory, from what `_records` lists."""
    errors: ClassVar[tuple[type[Exception], ...]] = ()
    threads: ClassVar[int] = 8
    """How many calls of `_call` run at once."""

    def __init__(self, url: str, options: StoresOptions) -> None:
        self.url = url
        self.options = options
        self._analyzer = Analyzer()
        self._rooms: dict[str, tuple[int, float]] = {}
        self._samples: dict[str, _Sample] = {}
        self._writes: defaultdict[str, int] = defaultdict(int)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="penstock-index")
        self._cpu = ThreadPoolExecutor(1, thread_name_prefix="penstock-terms")
        self._side = SideText() if self.fulltext == "penstock" else None

    # What an engine is. All are called with collections' ids, which are made of letters, digits and `_`.

    @abstractmethod
    async def _dimensions(self, collection_id: str) -> int | None:
        """The dimensions of a collection's vectors, or None when there is no such collection."""

    @abstractmethod
    async def _create(self, collection_id: str, dimensions: int) -> None:
        """Makes a collection that `_dimensions` does not know. Another process may be making the same."""

    @abstractmethod
    async def _drop(self, collection_id: str) -> None:
        """Takes a collection away, when it is there."""

    @abstractmethod
    async def _put(self, collection_id: str, records: Sequence[Record]) -> None:
        """Writes at most `BATCH_ROWS` records of distinct ids over those of the same ids; searches see them then."""

    @abstractmethod
    async def _remove(self, collection_id: str, where: Where) -> None:
        """Deletes all records that pass."""

    @abstractmethod
    async def _list(self, collection_id: str, where: Where | None, limit: int, *, vectors: bool) -> Sequence[Listed]:
        """Any `limit` records that pass, in any order."""

    @abstractmethod
    async def _nearest(self, collection_id: str, vector: Vector, wanted: Wanted) -> Sequence[Match]:
        """The nearest by cosine, best first. The condition comes before the ranking."""

    @abstractmethod
    async def _count(self, collection_id: str) -> int: ...

    async def _match(self, collection_id: str, terms: Sequence[str], wanted: Wanted) -> Sequence[Match]:
        """The best by BM25 of those that share a term, best first. A term that stands twice counts twice."""
        assert self._side is not None, "an engine with full-text search of its own has its own _match"
        if not self._side.is_current(collection_id, await self._count(collection_id)):
            await self._in_order(self._side.load, collection_id, await self._records(collection_id))
        best = await self._in_order(self._side.best, collection_id, terms, wanted.k, wanted.where)
        return [Match(chunk_id=one, metadata=metadata, score=score) for one, metadata, score in best]

    async def _records(self, collection_id: str) -> Sequence[Record]:  # noqa: ARG002
        """All records of a collection, for `fulltext = "penstock"`; their vectors may be empty."""
        raise AssertionError("an engine without full-text search of its own lists its records")

    # What every engine does alike.

    async def close(self) -> None:
        """An engine closes its connections first, then calls this."""
        self._pool.shutdown(wait=True)
        self._cpu.shutdown(wait=True)
        self._rooms.clear()
        self._samples.clear()

    async def create(self, collection_id: str, dimensions: int) -> None:
        async with self._guard(f"create collection {collection_id}"):
            present = await self._dimensions(collection_id)
            if present is None:
                await self._create(collection_id, dimensions)
                present = await self._dimensions(collection_id)
        if present != dimensions:
            raise DataError(
                f"Collection {collection_id} holds vectors of {present} dimensions, not {dimensions}; "
                "reindex it to change its embedding model"
            )
        self._rooms[collection_id] = (dimensions, time.monotonic())

    async def drop(self, collection_id: str) -> None:
        async with self._guard(f"drop collection {collection_id}"):
            await self._drop(collection_id)
        self._forget(collection_id)
        if self._side:
            await self._in_order(self._side.forget, collection_id)

    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        async with self._guard(f"write to collection {collection_id}"):
            dimensions = await self._room(collection_id)
            if dimensions is None:
                raise NotFound(f"The index has no collection {collection_id}; create it first")
            rows = list({row.chunk_id: row for row in rows}.values())
            stack([row.vector for row in rows], dimensions)
            for start in range(0, len(rows), BATCH_ROWS):
                records = await self._in_order(self._to_records, rows[start : start + BATCH_ROWS])
                await self._put(collection_id, records)
                self._writes[collection_id] += 1
                if self._side:
                    await self._in_order(self._side.put, collection_id, records)

    async def delete(
        self,
        collection_id: str,
        *,
        version_ids: Sequence[str] = (),
        document_ids: Sequence[str] = (),
        where: Filter | None = None,
    ) -> None:
        async with self._guard(f"remove rows of collection {collection_id}"):
            if await self._room(collection_id) is None:
                return
            for start in range(0, len(version_ids), IDS_A_DELETE):
                await self._erase(collection_id, of_versions(version_ids[start : start + IDS_A_DELETE], ()))
            for start in range(0, len(document_ids), IDS_A_DELETE):
                await self._erase(collection_id, of_versions((), document_ids[start : start + IDS_A_DELETE]))
            if where is not None:
                await self._delete_passing(collection_id, where)

    async def search(self, collection_id: str, query: IndexQuery) -> LaneHits:
        async with self._guard(f"search collection {collection_id}"):
            dimensions = await self._room(collection_id)
            if dimensions is None:
                return LaneHits()
            if query.vector is not None:
                check_dimensions(query.vector, dimensions)
            rows = await self._count(collection_id)
            return await self._search(collection_id, query, rows) if rows else LaneHits()

    async def count(self, collection_id: str) -> int:
        async with self._guard(f"count collection {collection_id}"):
            return 0 if await self._room(collection_id) is None else await self._count(collection_id)

    async def optimise(self, collection_id: str | None = None) -> None:
        """Most servers do this by themselves."""

    async def _search(self, collection_id: str, query: IndexQuery, rows: int) -> LaneHits:
        vector, text = query.vector, query.text
        terms = [] if text is None else self._analyzer.query_terms(text)
        near, match = self._nearest, self._match
        dense, hits, (mean, std) = await asyncio.gather(
            _nothing() if vector is None else self._lane(query, lambda w: near(collection_id, vector, w)),
            self._lane(query, lambda w: match(collection_id, terms, w)) if terms else _nothing(),
            self._spread(collection_id, vector, rows),
        )
        cosines = {one.chunk_id: one.score for one in dense}
        scores = {one.chunk_id: one.score for one in hits}
        if vector is not None:
            cosines |= await self._cosines(collection_id, vector, [one for one in scores if one not in cosines])
        return LaneHits(
            candidates=tuple(
                Candidate(chunk_id=one, dense=cosines.get(one), fulltext=None if text is None else scores.get(one, 0.0))
                for one in dict.fromkeys((*cosines, *scores))
            ),
            rows=rows,
            dense_mean=mean,
            dense_std=std,
            fulltext_floor=hits[-1].score if len(hits) == query.k else 0.0,
        )

    async def _lane(self, query: IndexQuery, lane: Callable[[Wanted], Awaitable[Sequence[Match]]]) -> Sequence[Match]:
        """Looks deeper while a filter that keys cannot tell whole leaves too few."""
        if query.filter is None:
            return await lane(Wanted(k=query.k))
        where, whole = narrow(query.filter)
        k = query.k
        while True:
            found = await lane(Wanted(k=k, where=where, metadata=not whole))
            passing = found if whole else [one for one in found if matches(query.filter, json.loads(one.metadata))]
            if whole or len(passing) >= query.k or len(found) < k or k >= MAX_K:
                return passing[: query.k]
            k = min(4 * k, MAX_K)

    async def _cosines(self, collection_id: str, vector: Vector, chunk_ids: Sequence[str]) -> Mapping[str, float]:
        if not chunk_ids:
            return {}
        listed = await self._list(collection_id, IsOneOf(tuple(chunk_ids)), len(chunk_ids), vectors=True)
        return {one.chunk_id: float(one.vector @ vector) for one in listed if one.vector is not None}

    async def _spread(self, collection_id: str, vector: Vector | None, rows: int) -> tuple[float, float]:
        """Mean and standard deviation of the query's cosine to the collection's rows (all of a small one)."""
        if vector is None:
            return 0.0, 0.0
        sample, writes, now = self._samples.get(collection_id), self._writes[collection_id], time.monotonic()
        if sample is None or (
            now - sample.taken_at > SAMPLE_AGE_S
            or (rows < SAMPLE_ROWS and (sample.rows, sample.writes) != (rows, writes))
        ):
            halvings = int(math.log2(max(1.0, rows / SAMPLE_ROWS)))
            listed = await self._list(collection_id, lot(halvings), 4 * SAMPLE_ROWS, vectors=True)
            vectors = stack([one.vector for one in listed if one.vector is not None], len(vector))
            sample = self._samples[collection_id] = _Sample(rows, writes, now, vectors)
        cosines = sample.vectors @ vector
        return (float(cosines.mean()), float(cosines.std())) if len(cosines) else (0.0, 0.0)

    async def _delete_passing(self, collection_id: str, where: Filter) -> None:
        condition, whole = narrow(where)
        if whole:
            await self._erase(collection_id, condition)
            return
        listed = await self._list(collection_id, condition, await self._count(collection_id), vectors=False)
        passing = [one.chunk_id for one in listed if matches(where, json.loads(one.metadata))]
        for start in range(0, len(passing), IDS_A_DELETE):
            await self._erase(collection_id, IsOneOf(tuple(passing[start : start + IDS_A_DELETE])))

    async def _erase(self, collection_id: str, where: Where) -> None:
        await self._remove(collection_id, where)
        self._writes[collection_id] += 1
        if self._side:
            await self._in_order(self._side.remove, collection_id, where)

    async def _room(self, collection_id: str) -> int | None:
        """The collection's dimensions, asked for anew every few seconds: another process may have made it anew."""
        known, now = self._rooms.get(collection_id), time.monotonic()
        if known is not None and now - known[1] < ROOM_AGE_S:
            return known[0]
        dimensions = await self._dimensions(collection_id)
        if dimensions is None:
            self._forget(collection_id)
        else:
            self._rooms[collection_id] = (dimensions, now)
        return dimensions

    def _forget(self, collection_id: str) -> None:
        self._rooms.pop(collection_id, None)
        self._samples.pop(collection_id, None)

    def _to_records(self, rows: Sequence[IndexRow]) -> list[Record]:
        return [
            Record(
                chunk_id=row.chunk_id,
                vector=np.asarray(row.vector, np.float32),
                terms=self._analyzer.index_terms(row.text),
                keys=keys_of(row),
                metadata=json.dumps(dict(row.metadata)),
            )
            for row in rows
        ]

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a blocking call of the engine's client on a thread."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _in_order(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs our own work on the one thread that is for it, so that it needs no locks."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._cpu, call)

    def _guard(self, doing: str) -> "_Guard":
        return _Guard(self, doing)


class _Guard:
    """Turns what an engine raises into errors of ours."""

    def __init__(self, index: EngineIndex, doing: str) -> None:
        self._index = index
        self._doing = doing

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._index.errors) and not isinstance(error, PenstockError):
            reason = (str(error) or type(error).__name__).partition("\n")[0][:300]
            raise Unavailable(f"Could not {self._doing}: {reason}", code="index_unavailable") from error


async def _nothing() -> Sequence[Any]:
    return ()
