"""A cache that forgets in time and stays small."""

import pytest

from penstock.api.ttl_cache import TtlCache


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def load(self) -> int:
        self.asked += 1
        return self.asked


async def test_a_value_is_kept_for_its_time_and_no_longer() -> None:
    now = 0.0
    cache: TtlCache[str, int] = TtlCache(ttl_s=3, max_entries=10, clock=lambda: now)
    source = Source()
    assert [await cache.get("a", source.load), await cache.get("a", source.load)] == [1, 1]
    now = 3.0
    assert await cache.get("a", source.load) == 2
    cache.forget("a")
    assert await cache.get("a", source.load) == 3


async def test_the_oldest_goes_when_it_is_full() -> None:
    cache: TtlCache[int, int] = TtlCache(ttl_s=3, max_entries=2, clock=lambda: 0.0)
    source = Source()
    for key in (1, 2, 3):
        await cache.get(key, source.load)
    assert await cache.get(3, source.load) == 3
    assert await cache.get(2, source.load) == 2
    assert await cache.get(1, source.load) == 4


async def test_an_error_is_not_kept() -> None:
    cache: TtlCache[str, int] = TtlCache(ttl_s=3, max_entries=2)

    async def fail() -> int:
        raise LookupError

    with pytest.raises(LookupError):
        await cache.get("a", fail)
    assert await cache.get("a", Source().load) == 1
