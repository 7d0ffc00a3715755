"""The contract of the blob store: uploaded bytes, addressed by their SHA-256.

Guarantees: `put` is durable and atomic when it returns (a reader sees the whole blob or none); putting the same bytes
twice is harmless, stores them once and makes them young again (see `list`); names are never chosen by users.
A name that is not 64 lower-case hex digits is a blob that is not there.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """`sha256` is 64 lower-case hex digits."""

    sha256: str
    size_bytes: int


class BlobStore(ABC):
    """Opened and closed as an async context manager."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """`DataError` when the store cannot be written."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def put(self, data: bytes | AsyncIterable[bytes], *, limit_bytes: int | None = None) -> Blob:
        """Stores the bytes. `TooLarge` as soon as more than the limit has come; `StorageFull` when the disk is full;
        in both cases nothing stays behind. A stream takes about a MiB of memory, however long it is."""

    @abstractmethod
    async def get(self, sha256: str) -> bytes:
        """`NotFound` when there is no such blob."""

    @abstractmethod
    def blocks(self, sha256: str) -> AsyncGenerator[bytes, None]:
        """The same in blocks of a quarter of a MiB, so that a large blob takes no memory. `NotFound` at the first."""

    @abstractmethod
    def list(self, *, older_than_s: float = 0.0) -> AsyncIterator[Blob]:
        """All blobs that were put so long ago or longer, in no order.

        Who collects garbage takes those only that are older than any upload can take until the ledger knows of it.
        """

    @abstractmethod
    async def delete(self, sha256: str) -> None:
        """Harmless when it is not there."""

    @abstractmethod
    async def ping(self) -> None:
        """`Unavailable` when the store cannot be written."""


def is_sha256(name: str) -> bool:
    """Whether a blob may be called so."""
    return _SHA256.fullmatch(name) is not None
