"""What every blob store promises."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.blobs import Blob, BlobStore, open_blobs
from penstock.errors import ConfigError, NotFound, TooLarge

MIB = 1024 * 1024


async def stream(*blocks: bytes) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def every(blobs: BlobStore, *, older_than_s: float = 0.0) -> set[Blob]:
    return {blob async for blob in blobs.list(older_than_s=older_than_s)}


@pytest.fixture
def spool_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stores without a folder of their own put what does not fit into memory."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.part") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, 70_000, MIB - 1, MIB, MIB + 1, 3 * MIB + 7])
@pytest.mark.parametrize("as_stream", [False, True])
async def test_bytes_come_back(
    spool_folder: Path, blobs: BlobStore, tmp_path: Path, size: int, as_stream: bool
) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    blocks = [data[i : i + 100_000] for i in range(0, size, 100_000)]
    blob = await blobs.put(stream(*blocks) if as_stream else data)
    assert blob == Blob(sha256=hashlib.sha256(data).hexdigest(), size_bytes=size)
    assert await blobs.get(blob.sha256) == data
    assert await every(blobs) == {blob}
    assert not leftovers(tmp_path)


async def test_the_same_bytes_are_stored_once(blobs: BlobStore) -> None:
    put = await asyncio.gather(*(blobs.put(b"same") for _ in range(20)))
    assert await every(blobs) == set(put)
    assert len(set(put)) == 1


@pytest.mark.parametrize("size", [10, 2 * MIB])
async def test_too_large_leaves_nothing(spool_folder: Path, blobs: BlobStore, tmp_path: Path, size: int) -> None:
    assert (await blobs.put(stream(bytes(size)), limit_bytes=size)).size_bytes == size
    kept = await every(blobs)
    blocks = iter([bytes(size), b"x", b"never asked for"])

    async def counted() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    with pytest.raises(TooLarge, match=str(size)):
        await blobs.put(counted(), limit_bytes=size)
    assert next(blocks) == b"never asked for", "it stops reading as soon as it is too much"
    with pytest.raises(TooLarge):
        await blobs.put(bytes(size) + b"x", limit_bytes=size)
    assert await every(blobs) == kept
    assert not leftovers(tmp_path)


async def test_a_stream_that_breaks_leaves_nothing(spool_folder: Path, blobs: BlobStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * MIB)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put(broken())
    assert not await every(blobs)
    assert not leftovers(tmp_path)


async def test_a_caller_that_leaves_leaves_nothing(spool_folder: Path, blobs: BlobStore, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)
            begun.set()

    task = asyncio.create_task(blobs.put(endless()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await every(blobs)
    assert not leftovers(tmp_path)


@pytest.mark.case(29)
@pytest.mark.parametrize(
    "name", ["", "x", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 65, "٠" * 64, "a" * 64 + "\n", "..", "/etc/passwd"]
)
async def test_only_digests_are_names(blobs: BlobStore, name: str) -> None:
    with pytest.raises(NotFound):
        await blobs.get(name)
    await blobs.delete(name)


@pytest.mark.parametrize("size", [0, 1, 300_000, 3 * MIB + 7])
async def test_a_large_blob_comes_in_blocks(blobs: BlobStore, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    blob = await blobs.put(data[:size])
    blocks = [block async for block in blobs.blocks(blob.sha256)]
    assert b"".join(blocks) == data[:size]
    for nothing in ("0" * 64, "../etc/passwd"):
        with pytest.raises(NotFound):
            await anext(blobs.blocks(nothing))


async def test_deleted_is_gone(blobs: BlobStore) -> None:
    blob = await blobs.put(b"x")
    await blobs.delete(blob.sha256)
    await blobs.delete(blob.sha256)
    with pytest.raises(NotFound, match=blob.sha256):
        await blobs.get(blob.sha256)
    assert not await every(blobs)


async def test_young_blobs_can_be_left_out(blobs: BlobStore) -> None:
    blob = await blobs.put(b"x")
    assert await every(blobs, older_than_s=60) == set()
    assert await every(blobs) == {blob}


async def test_ping(blobs: BlobStore) -> None:
    await blobs.ping()
    assert not await every(blobs)


@pytest.mark.parametrize("url", ["", "blobs", "file://relative", "ftp://x", "s3:"])
def test_a_url_that_is_no_store(url: str) -> None:
    with pytest.raises(ConfigError):
        open_blobs(url)
