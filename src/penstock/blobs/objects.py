"""Blobs in an object store (S3 and its likes, Google Cloud Storage, Azure), or in memory: `ab/abcd…`, by obstore."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import MemoryStore, from_url

from penstock.blobs.base import Blob, is_sha256
from penstock.blobs.spool import BLOCK_BYTES
from penstock.blobs.store import SpoolingStore
from penstock.errors import ConfigError, DataError, NotFound, Unavailable

_CLIENT: Any = {"connect_timeout": "5s", "timeout": "120s", "allow_http": True}
_RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}


class ObjectBlobs(SpoolingStore):
    """`store` is any of obstore's: a put of theirs is atomic, and durable as far as the store is."""

    def __init__(self, store: Any) -> None:
        super().__init__()
        self._store = store

    @classmethod
    def at(cls, url: str) -> "ObjectBlobs":
        """`memory://`, or `s3://bucket/prefix` and what else obstore knows; credentials come from the environment."""
        if url == "memory://":
            return cls(MemoryStore())
        try:
            return cls(from_url(url, client_options=_CLIENT, retry_config=_RETRY))
        except (BaseError, ValueError) as exc:
            raise ConfigError(f"There is no blob store at {url!r}: {_first_line(exc)}") from exc

    async def open(self) -> None:
        try:
            await self.ping()
        except Unavailable as exc:
            raise DataError(exc.message) from exc

    async def ping(self) -> None:
        with _errors():
            await obstore.put_async(self._store, "ping", b"")

    async def _publish(self, sha256: str, source: bytes | Path) -> None:
        with _errors():
            await obstore.put_async(self._store, _key(sha256), source)

    async def get(self, sha256: str) -> bytes:
        with _errors():
            return bytes(await (await self._find(sha256)).bytes_async())

    async def blocks(self, sha256: str) -> AsyncGenerator[bytes, None]:
        with _errors():
            async for block in (await self._find(sha256)).stream(min_chunk_size=BLOCK_BYTES):
                yield bytes(block)

    async def _find(self, sha256: str) -> Any:
        if not is_sha256(sha256):
            raise NotFound(f"There is no blob {sha256[:80]!a}.")
        try:
            return await obstore.get_async(self._store, _key(sha256))
        except FileNotFoundError as exc:
            raise NotFound(f"There is no blob {sha256!a}.") from exc

    async def list(self, *, older_than_s: float = 0.0) -> AsyncIterator[Blob]:
        before = time.time() - older_than_s
        with _errors():
            async for page in obstore.list(self._store):
                for entry in page:
                    name = entry["path"].rpartition("/")[2]
                    if is_sha256(name) and entry["last_modified"].timestamp() <= before:
                        yield Blob(sha256=name, size_bytes=entry["size"])

    async def delete(self, sha256: str) -> None:
        if is_sha256(sha256):
            with _errors(), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, _key(sha256))


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


@contextmanager
def _errors() -> Iterator[None]:
    """obstore's errors as ours."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as exc:
        raise Unavailable(f"The blob store refuses our credentials: {_first_line(exc)}. Check them.") from exc
    except (BaseError, OSError) as exc:
        told = _first_line(exc)
        raise Unavailable(f"The blob store does not do as it should: {told}. Check its address and bucket.") from exc


def _first_line(exc: Exception) -> str:
    """What obstore says goes on for pages."""
    return str(exc).partition("\n")[0][:300]
