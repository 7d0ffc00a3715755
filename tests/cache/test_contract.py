"""What every cache promises."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from penstock.cache import Cache, open_cache
from penstock.errors import ConfigError

Advance = Callable[[float], None]


async def test_values_come_back_as_they_were(cache: Cache) -> None:
    items = {"a": b"\0\xff", "b": b"", "键": b"x" * 1000}
    await cache.set_many("vectors", items, 60)
    assert await cache.get_many("vectors", ["a", "b", "键", "other"]) == items
    assert await cache.get_many("vectors", []) == {}
    assert await cache.get_many("vectors", ["a", "a"]) == {"a": b"\0\xff"}


async def test_namespaces_are_apart(cache: Cache) -> None:
    await cache.set_many("one", {"k": b"1"}, 60)
    await cache.set_many("two", {"k": b"2"}, 60)
    assert await cache.get_many("one", ["k"]) == {"k": b"1"}


async def test_the_last_value_counts(cache: Cache) -> None:
    await cache.set_many("n", {"k": b"long" * 100}, 60)
    await cache.set_many("n", {"k": b"2"}, 60)
    assert await cache.get_many("n", ["k"]) == {"k": b"2"}


async def test_nothing_outlives_its_time(cache: Cache, advance: Advance) -> None:
    await cache.set_many("n", {"short": b"1"}, 10)
    await cache.set_many("n", {"long": b"2"}, 20)
    advance(9)
    assert set(await cache.get_many("n", ["short", "long"])) == {"short", "long"}
    advance(1)
    assert set(await cache.get_many("n", ["short", "long"])) == {"long"}
    await cache.set_many("n", {"short": b"3"}, 10)
    assert await cache.get_many("n", ["short"]) == {"short": b"3"}


async def test_the_least_recently_used_makes_room(cache: Cache, advance: Advance) -> None:
    for i in range(80):
        await cache.set_many("n", {f"{i}": bytes(1000)}, 1e6)
        advance(100)
    old = [f"{i}" for i in range(10)]
    assert len(await cache.get_many("n", old)) == 10
    advance(100)
    await cache.set_many("n", {f"new{i}": bytes(1000) for i in range(10)}, 1e6)
    left = await cache.get_many("n", [f"{i}" for i in range(80)])
    assert set(old) <= set(left), "they were used since"
    assert len(left) < 80


async def test_it_stays_within_its_bytes(cache: Cache) -> None:
    for i in range(50):
        await cache.set_many("n", {f"{i}-{j}": bytes(1000) for j in range(20)}, 60)
    kept = await cache.get_many("n", [f"{i}-{j}" for i in range(50) for j in range(20)])
    assert sum(len(value) for value in kept.values()) <= 100_000


async def test_a_value_that_is_larger_than_all_is_not_kept(cache: Cache) -> None:
    await cache.set_many("n", {"huge": bytes(200_000)}, 60)
    assert await cache.get_many("n", ["huge"]) == {}
    await cache.set_many("n", {"small": b"x"}, 60)
    assert await cache.get_many("n", ["small"]) == {"small": b"x"}


async def test_many_at_once(cache: Cache) -> None:
    await asyncio.gather(*(cache.set_many("n", {f"{i}": b"%d" % i}, 60) for i in range(200)))
    many = [f"{i}" for i in range(1200)]
    assert await cache.get_many("n", many) == {f"{i}": b"%d" % i for i in range(200)}


async def test_hits_and_misses_are_counted(cache: Cache) -> None:
    def counted(name: str) -> Any:
        return REGISTRY.get_sample_value(f"penstock_cache_{name}_total", {"namespace": "counted"}) or 0.0

    hits, misses = counted("hits"), counted("misses")
    await cache.set_many("counted", {"a": b"1"}, 60)
    await cache.get_many("counted", ["a", "b", "c"])
    assert (counted("hits") - hits, counted("misses") - misses) == (1, 2)


@pytest.mark.parametrize("url", ["", "cache", "sqlite://", "sqlite:///", "memory://x", "ftp://x"])
def test_a_url_that_is_no_cache(url: str) -> None:
    with pytest.raises(ConfigError):
        open_cache(url)
