"""The schema's versions: new, old, newer than us, and none."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.ext.asyncio import create_async_engine

from penstock.errors import DataError
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.migrations import STEPS, Step
from penstock.ledger.sql import SqlLedger
from penstock.ledger.sqlite import FileDatabase
from penstock.types import CollectionOptions

SCHEMA_1 = Path(__file__).parent / "schema_1"
"""The tables as the first version made them, and a little of everything in them."""


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


def _first(dialect: str) -> list[str]:
    script = (SCHEMA_1 / f"{dialect}.sql").read_text() + (SCHEMA_1 / "data.sql").read_text()
    return [statement for statement in script.split(";\n") if statement.strip()]


async def _check_brought_on(ledger: Ledger) -> None:
    """All that was in the first version is there, and what came since works on it."""
    collection = await ledger.get_collection("acme", "docs")
    assert (collection.id, collection.index_id, collection.version) == ("col_1", "col_1", 3)
    document = await ledger.get_document("acme", "doc_1")
    assert (document.version, document.searchable_version, document.notes) == (2, 1, ())
    [found] = (await ledger.get_chunks("col_1", ["chk_1"])).values()
    assert (found.chunk.text, found.metadata) == ("Water is wet.", {"year": 2024})
    assert [key.scopes for key in await ledger.list_api_keys("acme")] == [("read",)]
    assert await ledger.finish_version("ver_2", [], pages=1, notes=["cut"], index_ids=frozenset({"col_1"}))
    assert [garbage.index_ids for garbage in await ledger.garbage()] == [["col_1"]]
    await ledger.generations.start("acme", "docs", "idx_1", CollectionOptions(), "job_9")
    assert await ledger.generations.switch("idx_1")
    assert await ledger.batches.gathering() == []


async def test_the_first_schema_is_brought_on_in_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(";\n".join(_first("sqlite")))
    async with open_ledger(f"sqlite:///{path}") as ledger:
        await _check_brought_on(ledger)
    fresh = path.with_name("fresh.db")
    async with open_ledger(f"sqlite:///{fresh}"):
        assert _shape(path) == _shape(fresh), "an old file has what a new one has"


async def test_the_first_schema_is_brought_on_in_postgresql(postgres_url: str) -> None:
    engine = create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as conn:
        for statement in _first("postgresql"):
            await conn.exec_driver_sql(statement)
    await engine.dispose()
    async with open_ledger(postgres_url) as ledger:
        await _check_brought_on(ledger)


def _shape(path: Path) -> dict[str, tuple[set[str], set[str | None]]]:
    """Columns and indexes by table."""
    engine = create_engine(f"sqlite:///{path}")
    try:
        found = inspect(engine)
        return {
            table: (
                {column["name"] for column in found.get_columns(table)},
                {index["name"] for index in found.get_indexes(table)},
            )
            for table in found.get_table_names()
        }
    finally:
        engine.dispose()
