"""Blobs in an object store (S3 and its likes, Google Cloud Storage, Azure), or in memory: `ab/abcd…`, by obstore."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import MemoryStore, from_url

from penstock.blobs.base import Blob, is_sha256
from penstock.blobs.store import SpoolingStore
from penstock.errors import ConfigError, DataError, NotFound, Unavailable


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
            return cls(from_url(url))
        except (BaseError, ValueError) as exc:
            raise ConfigError(f"There is no blob store at {url!r}: {exc}") from exc

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
        if not is_sha256(sha256):
            raise NotFound(f"There is no blob {sha256[:80]!a}.")
        try:
            with _errors():
                found = await obstore.get_async(self._store, _key(sha256))
                return bytes(await found.bytes_async())
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
            with _errors():
                await obstore.delete_async(self._store, _key(sha256))


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


@contextmanager
def _errors() -> Iterator[None]:
    """obstore's errors as ours."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as exc:
        raise Unavailable(f"The blob store refuses our credentials: {exc}. Check them.") from exc
    except BaseError as exc:
        raise Unavailable(f"The blob store does not answer: {exc}. Check its address and the network.") from exc
