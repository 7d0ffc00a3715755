"""A cache in this process's memory, for its event loop alone."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from penstock.cache.base import ENTRY_BYTES, Cache
from penstock.cache.metrics import EVICTED


class MemoryCache(Cache):
    """`clock` gives seconds that do not jump."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()
        self._bytes = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    async def _get_many(self, namespace: str, keys: list[str]) -> dict[str, bytes]:
        now = self._clock()
        found = {}
        for key in keys:
            entry = self._entries.get((namespace, key))
            if entry is None:
                continue
            value, expires_at = entry
            if expires_at <= now:
                self._drop((namespace, key))
            else:
                self._entries.move_to_end((namespace, key))
                found[key] = value
        return found

    async def _set_many(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None:
        expires_at = self._clock() + ttl_s
        for key, value in items.items():
            self._drop((namespace, key))
            self._entries[namespace, key] = (value, expires_at)
            self._bytes += _size(key, value)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
            EVICTED.inc()

    def _drop(self, name: tuple[str, str]) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._bytes -= _size(name[1], entry[0])


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
