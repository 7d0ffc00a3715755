"""The contract of a cache: bytes that could be computed again.

Guarantees: a value is returned whole and as it was set under exactly this namespace and key, or not at all; never after
its time to live. It may be gone at any moment. A cache that is broken is slow, not wrong: no call raises for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from penstock.cache.metrics import HITS, MISSES

ENTRY_BYTES = 200
"""What an entry costs beside its key and value, about."""


class Cache(ABC):
    """Opened and closed as an async context manager. A namespace is a short fixed word: it labels the metrics."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get_many(self, namespace: str, keys: Iterable[str]) -> dict[str, bytes]:
        """Those that are there, by key."""
        sought = list(dict.fromkeys(keys))
        found = await self._get_many(namespace, sought) if sought else {}
        HITS.labels(namespace).inc(len(found))
        MISSES.labels(namespace).inc(len(sought) - len(found))
        return found

    async def set_many(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None:
        """Keeps them for so long, unless room is needed; a value that was there is replaced."""
        if items:
            await self._set_many(namespace, items, ttl_s)

    @abstractmethod
    async def open(self) -> None:
        """`DataError` when there is no place for it."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def _get_many(self, namespace: str, keys: list[str]) -> dict[str, bytes]: ...

    @abstractmethod
    async def _set_many(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None: ...
