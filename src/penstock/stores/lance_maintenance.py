"""Keeps a LanceDB table fast: indexes cover new rows, small files become large ones, deleted rows leave the disk."""

import logging
import time
from datetime import timedelta
from functools import partial
from typing import Any

from penstock.stores.lance_engine import BTree, IvfFlat, LabelList
from penstock.stores.lance_errors import is_conflict, retry_commit
from penstock.stores.lance_table import PARTITION_ROWS, LanceTable
from penstock.stores.options import StoresOptions

logger = logging.getLogger(__name__)

SCALAR_INDEX_ROWS = 1_000
"""Below this a scan of the column is quicker than its index is worth."""
TERMS_INDEX = "terms_idx"
FRESH_ROWS = 5_000
CONFLICTS_BEFORE_LOCK = 2


async def prewarm(handle: Any) -> None:
    """Loads the indexes into memory, so that the first question is not slower than the tenth.

    An index that does not fit into the cache is read from the disk as it is needed.
    """
    for index in await handle.list_indices():
        try:
            await handle.prewarm_index(index.name)
        except RuntimeError as exc:
            logger.info("index %s of %s is not held in memory whole: %s", index.name, handle.name, exc)


async def is_due(table: LanceTable, options: StoresOptions) -> bool:
    """Whether something was written since the last time, and either writing has paused or much is not indexed yet."""
    paused_s = time.monotonic() - table.last_write
    if table.last_optimise >= table.last_write + options.retention_s:
        return False
    if table.last_optimise >= table.last_write:
        return paused_s >= options.retention_s  # once more: what was deleted may leave the disk now
    if paused_s >= options.pause_s:
        return True
    stats = await table.handle.index_stats(TERMS_INDEX)
    return stats is not None and stats.num_unindexed_rows > max(FRESH_ROWS, stats.num_indexed_rows // 10)


async def optimise(table: LanceTable, options: StoresOptions) -> None:
    """One round. Compaction loses against concurrent updates; after a few lost rounds it makes our writers wait.

    Another process may tidy the same table: who loses against it every time leaves the rest to the next round.
    """
    started = time.monotonic()
    compact = partial(table.handle.optimize, cleanup_older_than=timedelta(seconds=options.retention_s))
    try:
        await retry_commit(partial(_build_indexes, table.handle, options))
        try:
            await retry_commit(compact, attempts=CONFLICTS_BEFORE_LOCK)
        except (RuntimeError, OSError) as exc:
            if not is_conflict(exc):
                raise
            async with table.writing:
                await retry_commit(compact)
    except (RuntimeError, OSError) as exc:
        if not is_conflict(exc):
            raise
        logger.info("another process changes %s all the time; it will be tidied later", table.handle.name)
        return
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
    if rows >= options.vector_index_rows and "vector" not in present:
        # By size and not by number, so that later rounds of `optimize` split what has grown.
        config = IvfFlat(distance_type="cosine", target_partition_size=PARTITION_ROWS)
        await handle.create_index("vector", config=config)
