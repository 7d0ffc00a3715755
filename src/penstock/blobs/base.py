"""The contract of the blob store: uploaded bytes, addressed by their SHA-256.

Guarantees: `put` is durable and atomic when it returns (a reader sees the whole blob or none); putting the same bytes
twice is harmless and stores them once; names are never chosen by users.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """`sha256` is 64 lower-case hex digits."""

    sha256: str
    size_bytes: int


class BlobStore(ABC):
    @abstractmethod
    async def put(self, data: bytes | AsyncIterable[bytes], *, limit_bytes: int | None = None) -> Blob:
        """Stores the bytes. `TooLarge` as soon as more than the limit has come; `StorageFull` when the disk is full;
        in both cases nothing stays behind."""

    @abstractmethod
    async def get(self, sha256: str) -> bytes:
        """`NotFound` when there is no such blob."""

    @abstractmethod
    def list(self) -> AsyncIterator[Blob]:
        """All blobs, in no order."""

    @abstractmethod
    async def delete(self, sha256: str) -> None:
        """Harmless when it is not there."""

    @abstractmethod
    async def ping(self) -> None:
        """`Unavailable` when the store cannot be written."""
