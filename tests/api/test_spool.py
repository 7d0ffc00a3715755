"""Bytes on their way: in memory, on disk, and across the seam."""

import errno
from pathlib import Path

import anyio
import pytest

from penstock.api.spool import BLOCK_BYTES, MEMORY_BYTES, Spool, _storage_error
from penstock.errors import StorageFull, Unavailable


@pytest.mark.parametrize("total", [10, MEMORY_BYTES - 1, MEMORY_BYTES, 3 * MEMORY_BYTES + 12345])
async def test_every_range_reads_as_it_was_written(tmp_path: Path, total: int) -> None:
    data = bytes(i * 7 % 251 for i in range(1000)) * (total // 1000 + 1)
    data = data[:total]
    async with Spool(tmp_path, anyio.CapacityLimiter(1)) as spool:
        for start in range(0, total, 100_000):
            await spool.append(data[start : start + 100_000])
        assert spool.size == total
        for start in (0, 5, total // 2, total - 3, MEMORY_BYTES - 10, 3 * MEMORY_BYTES - 10):
            assert await spool.read(start, 100) == data[start : start + 100]
        assert b"".join([block async for block in spool.blocks(3, total - 3)]) == data[3:]
        assert all([len(block) <= BLOCK_BYTES async for block in spool.blocks(0, total)])


async def test_a_folder_that_is_gone_is_unavailable_and_a_full_disk_says_so(tmp_path: Path) -> None:
    async with Spool(tmp_path / "gone", anyio.CapacityLimiter(1)) as spool:
        with pytest.raises(Unavailable):
            await spool.append(b"x" * MEMORY_BYTES)
    assert isinstance(_storage_error(OSError(errno.ENOSPC, "No space")), StorageFull)
