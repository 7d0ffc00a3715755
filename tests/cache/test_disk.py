"""What is the disk cache's own: it outlives its process, is shared, and survives what happens to its file."""
# ruff: noqa: ASYNC240 - looking at files between two awaits blocks nobody here

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.cache import Cache, CacheOptions, open_cache
from penstock.errors import DataError

_PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cache.db"


def at(path: Path) -> Cache:
    return open_cache(f"sqlite:///{path}", CacheOptions(max_bytes=10_000_000))


def noise(path: Path, start: int) -> None:
    with path.open("r+b") as file:
        for page in range(start, path.stat().st_size, _PAGE):
            file.seek(page)
            file.write(b"\xa5" * 200)


async def filled(path: Path) -> None:
    async with at(path) as cache:
        await cache.set_many("n", {f"{i}": b"%d" % i * 100 for i in range(300)}, 3600)


async def test_it_outlives_its_process_and_is_shared(path: Path) -> None:
    await filled(path)
    async with at(path) as one, at(path) as two:
        assert len(await one.get_many("n", ["1", "2"])) == 2
        await two.set_many("n", {"new": b"x"}, 60)
        assert await one.get_many("n", ["new"]) == {"new": b"x"}


@pytest.mark.parametrize("start", [0, _PAGE])
async def test_a_damaged_file_is_made_anew(path: Path, start: int, caplog: pytest.LogCaptureFixture) -> None:
    await filled(path)
    noise(path, start)
    async with at(path) as cache:
        found = await cache.get_many("n", [f"{i}" for i in range(300)])
        assert all(value == b"%d" % int(key) * 100 for key, value in found.items())
        await cache.set_many("n", {"new": b"x"}, 60)
        await cache.set_many("n", {"new": b"x"}, 60)
        assert await cache.get_many("n", ["new"]) == {"new": b"x"}
    assert str(path) in caplog.text


async def test_a_truncated_file_is_made_anew(path: Path) -> None:
    await filled(path)
    os.truncate(path, path.stat().st_size // 2)
    async with at(path) as cache:
        await cache.get_many("n", ["1"])
        await cache.set_many("n", {"new": b"x"}, 60)
        assert await cache.get_many("n", ["new"]) == {"new": b"x"}


async def test_another_database_in_its_place_is_made_anew(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entries (cats TEXT)")
    async with at(path) as cache:
        await cache.set_many("n", {"new": b"x"}, 60)
        assert await cache.get_many("n", ["new"]) == {"new": b"x"}


async def test_a_value_that_changed_on_the_disk_is_a_miss(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE entries SET value = x'00' WHERE key = '7'")
        connection.commit()
    async with at(path) as cache:
        assert set(await cache.get_many("n", ["7", "8"])) == {"8"}


async def test_a_lock_costs_the_value_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await filled(path)
    async with at(path) as cache:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await cache.set_many("n", {"new": b"x"}, 60)
            assert set(await cache.get_many("n", ["new", "1"])) == {"1"}
        assert "locked" in caplog.text
        await cache.set_many("n", {"new": b"x"}, 60)
        assert await cache.get_many("n", ["new"]) == {"new": b"x"}


async def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/cache\.db"):
        await at(tmp_path / "file" / "cache.db").open()
