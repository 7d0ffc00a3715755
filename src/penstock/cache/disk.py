"""A cache in one SQLite file that processes share and that outlives them. Values are bytes, never interpreted."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from penstock.cache.base import Cache
from penstock.cache.file import CacheFile
from penstock.errors import DataError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_NO_CACHE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
"""Damaged, or a database with other tables than ours: what is in it is of no use to anybody."""


class DiskCache(Cache):
    """One thread reads and writes. A file that is damaged is thrown away and made anew, at start or later."""

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._file: CacheFile | None = None

    async def open(self) -> None:
        try:
            await self._in_thread(self._open)
        except (sqlite3.Error, OSError) as exc:
            self._executor.shutdown(wait=True)
            raise DataError(f"The cache {self._path} cannot be opened: {exc}. Check its folder.") from exc

    async def close(self) -> None:
        await self._in_thread(self._close)
        self._executor.shutdown(wait=True)

    async def _get_many(self, namespace: str, keys: list[str]) -> dict[str, bytes]:
        return await self._in_thread(self._try, lambda file: file.get(namespace, keys)) or {}

    async def _set_many(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None:
        await self._in_thread(self._try, lambda file: file.set(namespace, items, ttl_s))

    def _try(self, use: Callable[[CacheFile], T]) -> T | None:
        """None when it did not work: a busy or full disk passes, a damaged file is replaced."""
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            return use(self._file)
        except (sqlite3.Error, OSError) as exc:
            logger.warning("The cache %s was of no use just now: %s", self._path, exc)
            if _is_damage(exc):
                self._close()
                self._remove()
            return None

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = CacheFile(self._path, self._max_bytes, self._clock)
        except sqlite3.Error as exc:
            if not _is_damage(exc):
                raise
            logger.warning("The cache %s is damaged (%s) and is made anew", self._path, exc)
            self._remove()
            self._file = CacheFile(self._path, self._max_bytes, self._clock)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *args)


def _is_damage(exc: Exception) -> bool:
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _NO_CACHE
