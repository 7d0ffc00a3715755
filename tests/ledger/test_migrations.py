"""The schema's versions: new, old, newer than us, and none."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect

from penstock.errors import DataError
from penstock.ledger.migrations import STEPS, Step
from penstock.ledger.sql import SqlLedger
from penstock.ledger.sqlite import FileDatabase
from penstock.types import CollectionOptions


def _colour(conn: Connection) -> None:
    conn.exec_driver_sql("ALTER TABLE ledger_collections ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'")


def _breaks(conn: Connection) -> None:
    _colour(conn)
    raise RuntimeError("the power is gone")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def at(path: Path, *more: Step) -> SqlLedger:
    steps: Sequence[Step] = [*STEPS, *more]
    return SqlLedger(FileDatabase(path, steps=steps))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT version FROM ledger_schema").fetchone()[0])


def columns(path: Path) -> set[str]:
    engine = create_engine(f"sqlite:///{path}")
    try:
        return {column["name"] for column in inspect(engine).get_columns("ledger_collections")}
    finally:
        engine.dispose()


async def test_an_older_file_is_brought_on_with_all_that_is_in_it(path: Path) -> None:
    async with at(path) as ledger:
        made = await ledger.create_collection("acme", "docs", CollectionOptions())
    async with at(path, _colour) as ledger:
        assert await ledger.get_collection("acme", "docs") == made
    assert version(path) == len(STEPS) + 2
    assert "colour" in columns(path)
    async with at(path, _colour) as ledger:
        assert await ledger.get_collection("acme", "docs") == made, "and only once"


async def test_a_step_that_breaks_changes_nothing(path: Path) -> None:
    async with at(path):
        pass
    with pytest.raises(RuntimeError, match="power"):
        await at(path, _breaks).open()
    assert version(path) == len(STEPS) + 1
    assert "colour" not in columns(path)
    async with at(path, _colour):
        pass


@pytest.mark.case(19)
async def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    async with at(path):
        pass
    async with at(path, _colour):
        pass
    with pytest.raises(DataError, match=f"{path}.*newer"):
        await at(path).open()
    assert version(path) == len(STEPS) + 2


@pytest.mark.case(19)
async def test_a_file_without_a_version_is_damaged(path: Path) -> None:
    async with at(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM ledger_schema")
        connection.commit()
    with pytest.raises(DataError, match="damaged"):
        await at(path).open()
