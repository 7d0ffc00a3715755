"""What all blob stores share: blocking work in threads of their own, and the way of a blob until it has a name."""

import asyncio
import tempfile
from abc import abstractmethod
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from penstock.blobs.base import Blob, BlobStore
from penstock.blobs.spool import Spool

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8
_HASHED_AT_ONCE_BYTES = 64 * 1024
"""Hashed in about the time that handing it to a thread takes."""


class SpoolingStore(BlobStore):
    """A store that is given each blob whole, under its name: in memory when it is small, else as a file."""

    def __init__(self, spool_folder: Path | None = None) -> None:
        self._spool_folder = spool_folder or Path(tempfile.gettempdir())
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    @abstractmethod
    async def _publish(self, sha256: str, source: bytes | Path) -> None:
        """Makes the bytes the blob of this name, durably and in one moment. A file may be moved away."""

    async def close(self) -> None:
        self._executor.shutdown(wait=True)

    async def put(self, data: bytes | AsyncIterable[bytes], *, limit_bytes: int | None = None) -> Blob:
        spool = Spool(self._spool_folder, limit_bytes)
        try:
            if isinstance(data, bytes):
                spool.add(data)
            else:
                async for block in data:
                    if spool.add(block):
                        await self._in_thread(spool.flush)
            size_bytes = spool.size_bytes
            small = size_bytes <= _HASHED_AT_ONCE_BYTES
            sha256, source = spool.finish() if small else await self._in_thread(spool.finish)
            await self._publish(sha256, source)
        finally:
            spool.discard()
        return Blob(sha256=sha256, size_bytes=size_bytes)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs it to its end even if the caller is cancelled meanwhile, so that a clean-up comes after, not between."""
        work = asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
