"""What is the folder's own: durability, tidying up, a full disk."""

import os
import resource
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.blobs import BlobStore, open_blobs
from penstock.errors import DataError, StorageFull, Unavailable


def folder_blobs(folder: Path) -> BlobStore:
    return open_blobs(f"file://{folder}")


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """As on a disk that is full: writing beyond fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.case(2)
async def test_a_blob_is_synced_before_it_has_its_name_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(self, target)

    async def large() -> AsyncIterator[bytes]:
        yield bytes(2 * 1024 * 1024)

    async with folder_blobs(tmp_path) as blobs:
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        for data in (b"small", large()):
            calls.clear()
            await blobs.put(data)
            assert calls == ["sync file", "rename", "sync folder"]


@pytest.mark.case(17)
@pytest.mark.parametrize("size", [100_000, 3 * 1024 * 1024])
async def test_a_full_disk_leaves_nothing_and_works_again(tmp_path: Path, size: int) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield bytes(size)

    async with folder_blobs(tmp_path) as blobs:
        with files_limited_to(64 * 1024), pytest.raises(StorageFull, match="full"):
            await blobs.put(blocks())
        assert not files(tmp_path)
        blob = await blobs.put(blocks())
        assert len(await blobs.get(blob.sha256)) == size


async def test_what_a_crash_left_is_tidied_up_after_an_hour(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path) as blobs:
        blob = await blobs.put(b"x")
    old, young = tmp_path / "incoming" / "a.part", tmp_path / "incoming" / "b.part"
    for leftover in (old, young):
        leftover.write_bytes(b"half of someth")
    os.utime(old, (time.time() - 4000,) * 2)
    async with folder_blobs(tmp_path) as blobs:
        assert not old.exists()
        assert young.exists(), "another process may be at it"
        assert [found async for found in blobs.list()] == [blob]


async def test_putting_a_blob_again_makes_it_young(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path) as blobs:
        blob = await blobs.put(b"x")
        [path] = files(tmp_path)
        os.utime(path, (time.time() - 4000,) * 2)
        assert [found async for found in blobs.list(older_than_s=3600)] == [blob]
        await blobs.put(b"x")
        assert not [found async for found in blobs.list(older_than_s=3600)]


async def test_other_files_are_not_blobs(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path) as blobs:
        (tmp_path / "ab" / "notes.txt").write_text("mine")
        assert not [found async for found in blobs.list()]


@pytest.mark.case(19)
async def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file/blobs"):
        await folder_blobs(tmp_path / "file" / "blobs").open()


async def test_a_folder_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path / "blobs") as blobs:
        (tmp_path / "blobs" / "incoming").rmdir()
        with pytest.raises(Unavailable):
            await blobs.ping()
        with pytest.raises(Unavailable):
            await blobs.put(b"x")


async def test_what_is_there_is_made_young_not_written_again(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path) as blobs:
        blob = await blobs.put(b"words")
        path = tmp_path / blob.sha256[:2] / blob.sha256
        inode = path.stat().st_ino
        os.utime(path, (1_000_000, 1_000_000))
        assert await blobs.put(b"words") == blob
        assert path.stat().st_ino == inode
        assert [found async for found in blobs.list(older_than_s=60)] == []
        path.write_bytes(b"cut")
        await blobs.put(b"words")
        assert await blobs.get(blob.sha256) == b"words"


async def test_blocks_are_small(tmp_path: Path) -> None:
    async with folder_blobs(tmp_path) as blobs:
        blob = await blobs.put(bytes(1_000_000))
        assert [len(block) async for block in blobs.blocks(blob.sha256)] == [262_144] * 3 + [213_568]
