"""Bytes of one request on their way: a little in memory, the rest in one nameless temporary file."""

import errno
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import anyio.to_thread

from penstock.errors import StorageFull, Unavailable

MEMORY_BYTES: Final = 1024 * 1024
BLOCK_BYTES: Final = 256 * 1024


class Spool:
    """Append, then read any range. What is on disk has no name, so a crash leaves nothing behind.

    Not for several tasks that append; reading may be done by many at once. `folder`: where the file is made.
    """

    def __init__(self, folder: Path | None, limiter: anyio.CapacityLimiter) -> None:
        self._folder = folder
        self._limiter = limiter
        self._tail = bytearray()
        self._file: BinaryIO | None = None
        self._on_disk = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def size(self) -> int:
        return self._on_disk + len(self._tail)

    async def append(self, data: bytes) -> None:
        """Raises `StorageFull` or `Unavailable` when the disk does not take it."""
        self._tail += data
        if len(self._tail) >= (MEMORY_BYTES if self._file is None else BLOCK_BYTES):
            await anyio.to_thread.run_sync(self._flush, limiter=self._limiter)

    async def read(self, start: int, size: int) -> bytes:
        """The bytes of a range."""
        if start >= self._on_disk:
            return bytes(self._tail[start - self._on_disk : start - self._on_disk + size])
        return await anyio.to_thread.run_sync(self._read, start, size, limiter=self._limiter)

    async def blocks(self, start: int, size: int) -> AsyncIterator[bytes]:
        """The same, block by block."""
        for offset in range(start, start + size, BLOCK_BYTES):
            yield await self.read(offset, min(BLOCK_BYTES, start + size - offset))

    def _flush(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - closed at exit
            view = memoryview(bytes(self._tail))
            while view:
                view = view[self._file.write(view) :]
        except OSError as exc:
            raise _storage_error(exc) from exc
        self._on_disk += len(self._tail)
        self._tail.clear()

    def _read(self, start: int, size: int) -> bytes:
        assert self._file is not None
        parts = []
        try:
            while size and start < self._on_disk and (part := os.pread(self._file.fileno(), size, start)):
                parts.append(part)
                start += len(part)
                size -= len(part)
        except OSError as exc:
            raise _storage_error(exc) from exc
        if size:
            parts.append(bytes(self._tail[start - self._on_disk : start - self._on_disk + size]))
        return b"".join(parts)


def _storage_error(exc: OSError) -> Unavailable:
    if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("The disk for uploads is full. Free some space on the server and send the files again.")
    return Unavailable(f"The upload could not be kept on disk: {exc.strerror}.")
