"""Keeps a LanceDB table fast: indexes cover new rows, small files become large ones, deleted rows leave the disk."""

import logging
import math
import time
from datetime import timedelta
from typing import Any

from lancedb.index import BTree, IvfFlat, LabelList

from penstock.stores.lance_errors import is_conflict
from penstock.stores.lance_table import LanceTable
from penstock.stores.options import StoresOptions

logger = logging.getLogger(__name__)

SCALAR_INDEX_ROWS = 10_000
"""Below this a scan of the column is quicker than its index is worth."""
CONFLICTS_BEFORE_LOCK = 2


async def prewarm(handle: Any) -> None:
    """Loads the indexes into memory, so that the first question is not slower than the tenth."""
    for index in await handle.list_indices():
        await handle.prewarm_index(index.name)


async def maintain(table: LanceTable, options: StoresOptions) -> None:
    """Optimises when something was written since the last time, and either writing has paused or much is unindexed."""
    if table.last_optimise >= table.last_write:
        return
    now = time.monotonic()
    stats = await table.handle.index_stats("terms_idx")
    fresh = stats.num_unindexed_rows if stats else 0
    covered = stats.num_indexed_rows if stats else 0
    if now - table.last_write >= options.maintenance_interval_s or fresh > max(1_000, covered // 10):
        await optimise(table, options)


async def optimise(table: LanceTable, options: StoresOptions) -> None:
    """One round. Compaction loses against concurrent updates; after a few lost rounds it makes writers wait."""
    started = time.monotonic()
    await _build_indexes(table.handle, options)
    retention = timedelta(seconds=options.retention_s)
    for _ in range(CONFLICTS_BEFORE_LOCK):
        try:
            await table.handle.optimize(cleanup_older_than=retention)
            break
        except (RuntimeError, OSError) as exc:
            if not is_conflict(exc):
                raise
    else:
        async with table.writing:
            await table.handle.optimize(cleanup_older_than=retention)
    await prewarm(table.handle)
    table.last_optimise = started


async def _build_indexes(handle: Any, options: StoresOptions) -> None:
    rows = await handle.count_rows()
    present = {column for index in await handle.list_indices() for column in index.columns}
    if rows >= SCALAR_INDEX_ROWS:
        for column, kind in (
            ("chunk_id", BTree()),
            ("version_id", BTree()),
            ("document_id", BTree()),
            ("facets", LabelList()),
        ):
            if column not in present:
                await handle.create_index(column, config=kind)
    if rows >= options.ann_rows and "vector" not in present:
        partitions = max(1, round(math.sqrt(rows)))
        await handle.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=partitions))
