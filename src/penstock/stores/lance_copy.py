"""Keeps the copy in memory of one LanceDB table right (see `mirror`)."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.stores.mirror import COLUMNS, FEW_ROWS, SEGMENT_ROWS, Mirror, Stamp

logger = logging.getLogger(__name__)

TAKE_ROWS = 50_000
LISTED_ROWS = 100_000
REFUSED_S = 10.0
"""How long a copy that did not fit in is not tried again."""
BYTES_A_DIMENSION = 5
"""Of a vector and its sketch."""
BYTES_A_ROW = 2_000
"""Of a row beside its vector: its terms' and facets' postings, its id."""


class LanceCopy:
    """`fits` says whether so many bytes may be used; `executor` has one thread, on which copies are made."""

    def __init__(self, handle: Any, place: Path, executor: Executor, fits: Callable[[int], bool]) -> None:
        self.bytes = 0
        self._handle = handle
        self._place = place
        self._executor = executor
        self._fits = fits
        self._mirror: Mirror | None = None
        self._stamp: Stamp | None = None
        self._version = -1
        self._refused_at = -math.inf
        self._much_is_missing = False
        self._copying = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def unchanged(self) -> bool:
        """Whether nobody can have written to the table since the copy was last right."""
        return self._stamp is not None and Stamp.of(self._place) == self._stamp

    def forget(self) -> None:
        """The table was made anew."""
        self._mirror, self._stamp, self._version = None, None, -1

    async def current(self, dimensions: int) -> Mirror | None:
        """The copy, as the table is now; None while it is not there yet, or much is missing in it."""
        if self.unchanged():
            return self._mirror
        if self._much_is_missing:
            return None
        async with self._copying:
            if self._mirror is None or not await self._catch_up(self._mirror):
                self.begin(dimensions)
                return None
            return self._mirror

    def begin(self, dimensions: int) -> None:
        """Copies what is missing, in the background."""
        if time.monotonic() - self._refused_at < REFUSED_S:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._copy(dimensions), name="copy of a table")

    async def done(self) -> None:
        """Waits for a copy that is being made."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _copy(self, dimensions: int) -> None:
        if not self._reserve(await self._handle.count_rows(), dimensions):
            return
        try:
            async with self._copying:
                if self._mirror is None or not await self._catch_up(self._mirror):
                    await self._copy_much(Mirror(dimensions) if self._mirror is None else self._mirror.successor())
        except (RuntimeError, OSError, ValueError) as exc:  # searches go to the disk, and say what is wrong there
            logger.info("%s is not held in memory: %s", self._place.name, exc)
            return
        finally:
            self._much_is_missing = False
        if self._mirror is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._mirror.settle)

    async def _copy_much(self, mirror: Mirror) -> None:
        """Part by part, each dropped once it is a segment. Searches go to the disk meanwhile, by the old copy's end."""
        stamp, version = Stamp.of(self._place), await self._handle.version()
        alive = await self._addresses()
        if not self._reserve(len(alive), mirror.dimensions):
            return
        self.forget()
        missing = mirror.missing(alive)
        self._much_is_missing = len(missing) > FEW_ROWS
        await self._sync(mirror, alive, pa.table({}))
        self._mirror = mirror
        for start in range(0, len(missing), SEGMENT_ROWS):
            fresh = await self._fetch(missing[start : start + SEGMENT_ROWS])
            if fresh is None:
                return
            await self._sync(mirror, None, fresh)
        self._stamp, self._version = stamp, version

    async def _sync(self, mirror: Mirror, alive: NDArray[Any] | None, fresh: pa.Table) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, mirror.sync, alive, fresh)

    async def settle(self) -> None:
        """To be called now and then while nobody writes."""
        if self._mirror is not None and self.unchanged():
            await asyncio.get_running_loop().run_in_executor(self._executor, self._mirror.settle)

    async def _catch_up(self, mirror: Mirror) -> bool:
        """False when more than a few rows are missing, or they vanished while they were fetched."""
        stamp, version = Stamp.of(self._place), await self._handle.version()
        if version != self._version:
            fresh, alive = await self._added(mirror), None
            if fresh is None:
                alive = await self._addresses()
                missing = mirror.missing(alive)
                if len(missing) > FEW_ROWS or not self._reserve(len(alive), mirror.dimensions):
                    return False
                fresh = await self._fetch(missing)
                if fresh is None:
                    return False
            await self._sync(mirror, alive, fresh)
        self._stamp, self._version = stamp, version
        return True

    async def _addresses(self) -> NDArray[Any]:
        """Those of all rows, sorted."""
        listed = await self._handle.query().with_row_id().select([]).to_batches(max_batch_length=LISTED_ROWS)
        parts = [batch["_rowid"].to_numpy() async for batch in listed]
        # They come nearly in order, of which this kind of sorting makes use.
        return np.sort(np.concatenate(parts), kind="stable") if parts else np.empty(0, np.uint64)

    async def _added(self, mirror: Mirror) -> pa.Table | None:
        """The rows that were written since; None when rows are gone as well, or more were written than a few.

        The usual case while documents come in, and far quicker than to look at every row's address.
        """
        rows = await self._handle.count_rows()
        if self._version < 0 or not mirror.rows <= rows <= mirror.rows + FEW_ROWS:
            return None
        if not self._reserve(rows, mirror.dimensions):
            return None
        later = self._handle.query().where(f"_rowid >= {mirror.end}").with_row_id().select(COLUMNS)
        fresh = await later.limit(FEW_ROWS + 1).to_arrow()
        return fresh if mirror.rows + len(fresh) == rows else None

    def _reserve(self, rows: int, dimensions: int) -> bool:
        """Whether a copy of so many rows fits in; when it does not, there is none any more."""
        needed = rows * (BYTES_A_DIMENSION * dimensions + BYTES_A_ROW)
        if self._fits(needed - self.bytes):
            self.bytes, self._refused_at = needed, -math.inf
            return True
        if math.isinf(self._refused_at) and self._fits(-self.bytes):  # else no copies are wanted at all
            logger.warning(
                "The %d chunks of %s take %d MB of memory, more than stores.memory_mb leaves: their questions are "
                "answered from disk, which takes several times as long",
                rows,
                self._place.stem,
                needed >> 20,
            )
        self.forget()
        self.bytes, self._refused_at = 0, time.monotonic()
        return False

    async def _fetch(self, addresses: NDArray[np.uint64]) -> pa.Table | None:
        """The rows at these addresses; None when some of them are no longer there."""
        parts = []
        for start in range(0, len(addresses), TAKE_ROWS):
            wanted = addresses[start : start + TAKE_ROWS].tolist()
            part = await self._handle.take_row_ids(wanted).select(COLUMNS).with_row_id().to_arrow()
            if len(part) != len(wanted):
                return None
            parts.append(part)
        return pa.concat_tables(parts) if parts else pa.table({"_rowid": pa.array([], pa.uint64())})
