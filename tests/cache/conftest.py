"""A small cache of every engine, its clock in the test's hand."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from penstock.cache import Cache
from penstock.cache.disk import DiskCache
from penstock.cache.memory import MemoryCache

MAX_BYTES = 100_000


class Clock:
    """Seconds that stand still until somebody moves them."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def advance(clock: Clock) -> Callable[[float], None]:
    """Moves the clock by so many seconds."""

    def move(seconds: float) -> None:
        clock.now += seconds

    return move


@pytest.fixture(params=["memory", "disk"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Cache]:
    opened: Cache
    if request.param == "memory":
        opened = MemoryCache(MAX_BYTES, clock)
    else:
        opened = DiskCache(tmp_path / "cache.db", MAX_BYTES, clock)
    async with opened:
        yield opened
