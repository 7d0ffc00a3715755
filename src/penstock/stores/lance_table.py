"""One collection's table in LanceDB: how it is searched, and what of it is kept in memory."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.filters import Filter
from penstock.stores.base import Candidate, IndexQuery, LaneHits, Vector
from penstock.stores.lance_copy import LanceCopy
from penstock.stores.lance_errors import retry_commit
from penstock.stores.lance_filter import any_of, to_sql
from penstock.stores.lance_rows import IDENTITY, dimensions_of
from penstock.stores.mirror import can_filter
from penstock.stores.options import StoresOptions

SAMPLE_ROWS = 512
SAMPLE_AGE_S = 10.0
IDS_A_DELETE = 500
PARTITION_ROWS = 1_024
MIN_PROBES = 16
MAX_PROBES = 96


@dataclass(frozen=True, slots=True)
class _Sample:
    """Vectors of random rows, (n, dimensions), from which the spread of a query's cosines is estimated."""

    table_version: int
    taken_at: float
    vectors: Vector


class LanceTable:
    """`writing` is held by whoever writes; the times of the last write and optimise steer maintenance."""

    def __init__(self, handle: Any, options: StoresOptions, copy: LanceCopy, threads: Executor) -> None:
        self.handle = handle
        self.copy = copy
        self.dimensions = 0
        self.writing = asyncio.Lock()
        self.last_write = time.monotonic()  # unknown writes of before count as one now
        self.last_optimise = 0.0
        self._options = options
        self._threads = threads
        self._identity = b""
        self._sample: _Sample | None = None

    async def refresh(self) -> None:
        """Reads what may have changed: another process may have made the table anew for another model."""
        if self.dimensions and self.copy.unchanged():
            return
        found = await self.handle.schema()
        self.dimensions = dimensions_of(found)
        identity = (found.metadata or {}).get(IDENTITY, b"")
        if identity != self._identity:
            self._identity = identity
            self.copy.forget()

    async def close(self) -> None:
        await self.copy.close()
        self.handle.close()

    async def upsert(self, batch: pa.Table) -> None:
        """Writes a batch of distinct chunk ids in one commit."""
        merge = self.handle.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all()
        async with self.writing:
            await retry_commit(partial(merge.execute, batch))
            self.last_write = time.monotonic()

    async def delete(
        self, version_ids: Sequence[str], document_ids: Sequence[str], where: Filter | None = None
    ) -> None:
        """Deletes in commits of at most `IDS_A_DELETE` ids, and one more for the filter."""
        async with self.writing:
            for column, ids in (("version_id", version_ids), ("document_id", document_ids)):
                for start in range(0, len(ids), IDS_A_DELETE):
                    clause = any_of(column, ids[start : start + IDS_A_DELETE])
                    await retry_commit(partial(self.handle.delete, clause))
            if where is not None:
                await retry_commit(partial(self.handle.delete, to_sql(where)))
            self.last_write = time.monotonic()

    async def search(self, query: IndexQuery, terms: list[str]) -> LaneHits:
        mirror = await self.copy.current(self.dimensions) if can_filter(query.filter) else None
        if mirror is None:
            return await self._search_disk(query, terms)
        return await asyncio.get_running_loop().run_in_executor(self._threads, mirror.search, query, terms)

    async def _search_disk(self, query: IndexQuery, terms: list[str]) -> LaneHits:
        where = None if query.filter is None else to_sql(query.filter)
        rows = await self.handle.count_rows()
        try:
            async with asyncio.TaskGroup() as group:
                dense = group.create_task(self._dense(query, where, rows))
                text = group.create_task(self._fulltext(query, terms, where))
                spread = group.create_task(self._spread(query.vector, rows))
        except* Exception as failed:
            raise failed.exceptions[0] from None
        mean, std = spread.result()
        text_hits = text.result()
        scores = text_hits.column("_score").to_pylist()
        return LaneHits(
            candidates=_join(query, dense.result(), text_hits),
            rows=rows,
            dense_mean=mean,
            dense_std=std,
            fulltext_floor=scores[-1] if len(scores) == query.k else 0.0,
        )

    async def _dense(self, query: IndexQuery, where: str | None, rows: int) -> pa.Table:
        if query.vector is None:
            return pa.table({"chunk_id": pa.array([], pa.string()), "_distance": pa.array([], pa.float32())})
        probes = min(MAX_PROBES, max(MIN_PROBES, round(self._options.probe_share * rows / PARTITION_ROWS)))
        search = self.handle.query().nearest_to(query.vector).distance_type("cosine").nprobes(probes)
        search = search.select(["chunk_id", "_distance"]).limit(query.k)
        return await (search if where is None else search.where(where)).to_arrow()

    async def _fulltext(self, query: IndexQuery, terms: list[str], where: str | None) -> pa.Table:
        columns = ["chunk_id", "_score"] if query.vector is None else ["chunk_id", "_score", "vector"]
        if not terms:
            return pa.table({"chunk_id": pa.array([], pa.string()), "_score": pa.array([], pa.float32())})
        search = self.handle.query().nearest_to_text(" ".join(terms), columns=["terms"])
        search = search.select(columns).limit(query.k)
        return await (search if where is None else search.where(where)).to_arrow()

    async def _spread(self, vector: Vector | None, rows: int) -> tuple[float, float]:
        """Mean and standard deviation of the query's cosine to the collection's rows."""
        if vector is None:
            return 0.0, 0.0
        cosines = (await self._sampled(rows)) @ vector
        return (float(cosines.mean()), float(cosines.std())) if len(cosines) else (0.0, 0.0)

    async def _sampled(self, rows: int) -> Vector:
        """Random rows' vectors, taken anew when the table has changed: at once while small, else every few seconds."""
        sample, version, now = self._sample, await self.handle.version(), time.monotonic()
        if sample is not None and (
            sample.table_version == version
            or (len(sample.vectors) == SAMPLE_ROWS and now - sample.taken_at < SAMPLE_AGE_S)
        ):
            return sample.vectors
        picked = np.random.default_rng(rows).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
        try:
            taken = await self.handle.take_offsets(sorted(picked.tolist())).select(["vector"]).to_arrow()
        except RuntimeError:
            if rows <= await self.handle.count_rows():
                raise
            return await self._sampled(await self.handle.count_rows())  # rows were deleted since they were counted
        self._sample = _Sample(version, now, _matrix(taken, self.dimensions))
        return self._sample.vectors


def _matrix(table: pa.Table, dimensions: int) -> Vector:
    values = table.column("vector").combine_chunks().flatten().to_numpy()
    return np.asarray(values, dtype=np.float32).reshape(-1, dimensions)


def _join(query: IndexQuery, dense: pa.Table, text: pa.Table) -> tuple[Candidate, ...]:
    """One candidate a row that either lane found. What only full-text found gets its cosine from the fetched vector."""
    cosines = dict(zip(dense["chunk_id"].to_pylist(), (1 - dense["_distance"].to_numpy()).tolist(), strict=True))
    scores = dict(zip(text["chunk_id"].to_pylist(), text["_score"].to_pylist(), strict=True))
    if query.vector is not None and scores:
        fetched = _matrix(text, len(query.vector)) @ query.vector
        cosines = dict(zip(scores, fetched.tolist(), strict=True)) | cosines
    return tuple(
        Candidate(
            chunk_id=key,
            dense=cosines.get(key),
            fulltext=None if query.text is None else scores.get(key, 0.0),
        )
        for key in dict.fromkeys((*cosines, *scores))
    )
