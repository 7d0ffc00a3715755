"""Blobs in a local folder: `ab/abcd…`, one file a blob. Not by obstore, whose local store does not fsync."""

import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from penstock.blobs.base import Blob, is_sha256
from penstock.blobs.opening import opened
from penstock.blobs.spool import BLOCK_BYTES, SUFFIX, storage_errors
from penstock.blobs.store import SpoolingStore
from penstock.errors import DataError, NotFound

_LEFTOVER_S = 3600.0
_SYNCED_WITHIN_S = 60.0
"""A blob as young as that may have its name, but not durably so: another process is about to sync the folder."""
_SHELVES = [f"{number:02x}" for number in range(256)]


class FolderBlobs(SpoolingStore):
    """A blob is written aside, synced, renamed, and its folder synced: it survives a power cut, or was never there."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "incoming")
        self._folder = folder

    async def open(self) -> None:
        try:
            await self._in_thread(self._prepare)
        except OSError as exc:
            raise DataError(f"Blobs cannot be stored in {self._folder}: {exc}. Check the folder.") from exc

    def _prepare(self) -> None:
        self._spool_folder.mkdir(parents=True, exist_ok=True)
        for shelf in _SHELVES:
            (self._folder / shelf).mkdir(exist_ok=True)
        _sync(self._folder)
        _sync(self._folder.parent)
        self._try_to_write()
        for leftover in self._spool_folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another process may tidy up just now
                if leftover.stat().st_mtime < time.time() - _LEFTOVER_S:
                    leftover.unlink()

    def _try_to_write(self) -> None:
        trial = self._aside()
        try:
            trial.write_bytes(b"?")
        finally:
            trial.unlink(missing_ok=True)

    def _aside(self) -> Path:
        return self._spool_folder / f"{secrets.token_hex(16)}{SUFFIX}"

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    async def ping(self) -> None:
        await self._in_thread(self._ping)

    def _ping(self) -> None:
        with storage_errors():
            self._try_to_write()

    async def _publish(self, sha256: str, source: bytes | Path) -> None:
        await self._in_thread(self._place, sha256, source)

    def _place(self, sha256: str, source: bytes | Path) -> None:
        target = self._path(sha256)
        if self._is_there(target, source):
            return
        aside = source if isinstance(source, Path) else self._aside()
        with storage_errors():
            try:
                with aside.open("ab") as file:
                    if isinstance(source, bytes):
                        file.write(source)
                        file.flush()
                    os.fsync(file.fileno())
                aside.replace(target)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            _sync(target.parent)

    @staticmethod
    def _is_there(target: Path, source: bytes | Path) -> bool:
        """Whether it was put before, whole: then it is durable already, and is made young again (see `list`)."""
        try:
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            there = target.stat()
            if there.st_size != size:
                return False
            os.utime(target)
            if time.time() - there.st_mtime < _SYNCED_WITHIN_S:
                _sync(target.parent)
        except OSError:  # not there, or just being collected: it is written
            return False
        return True

    async def get(self, sha256: str) -> bytes:
        return await self._in_thread(self._read, sha256)

    def _read(self, sha256: str) -> bytes:
        with storage_errors():
            if is_sha256(sha256):
                with contextlib.suppress(FileNotFoundError):
                    return self._path(sha256).read_bytes()
        raise NotFound(f"There is no blob {sha256[:80]!a}.")

    async def blocks(self, sha256: str) -> AsyncGenerator[bytes, None]:
        async with opened(self._executor, lambda: self._open_blob(sha256)) as file:
            while block := await self._in_thread(self._read_block, file):
                yield block

    def _open_blob(self, sha256: str) -> BinaryIO:
        with storage_errors():
            if is_sha256(sha256):
                with contextlib.suppress(FileNotFoundError):
                    return self._path(sha256).open("rb", buffering=0)
        raise NotFound(f"There is no blob {sha256[:80]!a}.")

    @staticmethod
    def _read_block(file: BinaryIO) -> bytes:
        with storage_errors():
            return file.read(BLOCK_BYTES)

    async def list(self, *, older_than_s: float = 0.0) -> AsyncIterator[Blob]:
        before = time.time() - older_than_s
        for shelf in _SHELVES:
            for blob in await self._in_thread(self._on_shelf, shelf, before):
                yield blob

    def _on_shelf(self, shelf: str, before: float) -> Sequence[Blob]:
        blobs = []
        with storage_errors(), os.scandir(self._folder / shelf) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    status = entry.stat(follow_symlinks=False)
                    if is_sha256(entry.name) and status.st_mtime <= before:
                        blobs.append(Blob(sha256=entry.name, size_bytes=status.st_size))
        return blobs

    async def delete(self, sha256: str) -> None:
        if is_sha256(sha256):
            await self._in_thread(self._delete, sha256)

    def _delete(self, sha256: str) -> None:
        with storage_errors():
            self._path(sha256).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
