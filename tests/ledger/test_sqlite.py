"""What is SQLite's own: the file, its damage, its limits, and several processes on it."""
# ruff: noqa: ASYNC240 - looking at files between two awaits blocks nobody here

import asyncio
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from penstock.errors import DataError, StorageFull, Unavailable
from penstock.ledger import Ledger, open_ledger, sqlite
from penstock.ledger.base import NewVersion
from penstock.ledger.batch_records import NewBatch, NewItem, NewSource, Position, SourceKind
from penstock.ledger.sql import SqlLedger
from penstock.types import BatchItemState, Chunk, CollectionOptions, DocumentStatus, Failure

Upload = Callable[..., NewVersion]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def at(path: Path) -> Ledger:
    return open_ledger(f"sqlite:///{path}")


async def filled(path: Path, upload: Upload, documents: int = 300) -> None:
    async with at(path) as ledger:
        await ledger.create_collection("acme", "docs", CollectionOptions())
        await ledger.accept("acme", "docs", [upload(f"{i}") for i in range(documents)])


async def count(path: Path) -> int:
    async with at(path) as ledger:
        return len((await ledger.list_documents("acme", "docs", limit=100_000)).documents)


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


async def test_what_was_written_is_there_after_a_restart(path: Path, upload: Upload) -> None:
    await filled(path, upload)
    assert await count(path) == 300
    assert {found.name for found in path.parent.iterdir()} == {"ledger.db", "ledger.db-turn"}


async def test_folders_on_the_way_are_made(tmp_path: Path, upload: Upload) -> None:
    await filled(tmp_path / "a" / "b" / "ledger.db", upload, 1)


# --- damage


@pytest.mark.case(19)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9])
async def test_a_truncated_file_is_refused(path: Path, upload: Upload, kept: float) -> None:
    await filled(path, upload)
    size = int(path.stat().st_size * kept)
    os.truncate(path, size)
    with pytest.raises(DataError, match=str(path)):
        await at(path).open()
    assert path.stat().st_size == size, "it is left as it was"


@pytest.mark.case(19)
@pytest.mark.parametrize("seed", range(5))
async def test_a_file_with_noise_in_it_is_refused(path: Path, upload: Upload, seed: int) -> None:
    await filled(path, upload)
    noise = random.Random(seed)
    with path.open("r+b") as file:
        for page in range(0, path.stat().st_size, 4096):
            file.seek(page)
            file.write(noise.randbytes(64))
    with pytest.raises(DataError, match=str(path)):
        await at(path).open()


@pytest.mark.case(19)
async def test_a_damaged_page_in_the_middle_is_refused(path: Path, upload: Upload) -> None:
    await filled(path, upload)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(DataError, match="restore"):
        await at(path).open()


@pytest.mark.case(19)
async def test_another_database_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    with pytest.raises(DataError, match="not a ledger"):
        await at(path).open()


@pytest.mark.case(19)
async def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(DataError, match="not a file"):
        await at(path).open()


@pytest.mark.case(19)
async def test_a_log_without_its_file_is_refused(path: Path) -> None:
    path.with_name("ledger.db-wal").write_bytes(b"the last hours")
    with pytest.raises(DataError, match="missing"):
        await at(path).open()
    assert not path.exists()


@pytest.fixture
def no_rights() -> Iterator[Path]:
    """A folder that we may read but not write; the superuser may everything, so he becomes nobody for a while."""
    folder = Path(tempfile.mkdtemp())
    before = os.geteuid()
    try:
        yield folder
    finally:
        os.seteuid(before)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


@pytest.mark.case(19)
@pytest.mark.parametrize("exists", [False, True])
async def test_a_folder_without_rights_is_refused(no_rights: Path, upload: Upload, exists: bool) -> None:
    path = no_rights / "ledger.db"
    if exists:
        await filled(path, upload, 1)
        path.chmod(0o444)
    no_rights.chmod(0o555)
    become_nobody()
    with pytest.raises(DataError, match=str(path)):
        await at(path).open()


# --- limits


@pytest.mark.case(19)
async def test_a_lock_is_waited_for_and_then_told(path: Path, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.2)
    await filled(path, upload, 1)
    async with at(path) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="locked"):
                await ledger.accept("acme", "docs", [upload("b")])
            with pytest.raises(DataError, match="locked"):
                await at(path).open()
            assert len((await ledger.list_documents("acme")).documents) == 1, "reading goes on"
            waiting = asyncio.create_task(ledger.accept("acme", "docs", [upload("b")]))
            other.execute("COMMIT")
            [accepted] = await waiting
        assert accepted.created


@pytest.mark.case(17)
async def test_a_full_disk_fails_what_does_not_fit_and_nothing_else(path: Path, upload: Upload) -> None:
    await filled(path, upload, 1)
    database = sqlite.FileDatabase(path)
    async with SqlLedger(database) as ledger:
        await database.write(_limit_pages_to, 150)
        large = {"text": "x" * 1_000_000}
        calls = [ledger.accept("acme", "docs", [upload(f"s{i}")]) for i in range(10)]
        calls.insert(5, ledger.accept("acme", "docs", [upload("large", metadata=large)]))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [i for i, result in enumerate(results) if isinstance(result, BaseException)] == [5]
        assert isinstance(results[5], StorageFull)
        await database.write(_limit_pages_to, 1_000_000)
        [accepted] = await ledger.accept("acme", "docs", [upload("large", metadata=large)])
        assert accepted.created
    assert integrity(path) == "ok"
    assert await count(path) == 12


def _limit_pages_to(conn: Connection, pages: int) -> None:
    conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


# --- several at once


@contextmanager
def counted_commits() -> Iterator[list[Connection]]:
    commits: list[Connection] = []

    def committed(conn: Connection) -> None:
        commits.append(conn)

    event.listen(Engine, "commit", committed)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", committed)


async def test_what_waits_together_is_committed_together(path: Path, upload: Upload) -> None:
    await filled(path, upload, 1)
    async with at(path) as ledger:
        with counted_commits() as commits:
            await asyncio.gather(*(ledger.accept("acme", "docs", [upload(f"n{i}")]) for i in range(500)))
        assert 2 <= len(commits) < 50


@pytest.mark.case(19)
async def test_many_may_open_a_new_file_at_once(path: Path, upload: Upload) -> None:
    ledgers = [at(path) for _ in range(5)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers))
    await ledgers[0].create_collection("acme", "docs", CollectionOptions())
    await asyncio.gather(
        *(ledger.accept("acme", "docs", [upload(f"{n}-{i}")]) for n, ledger in enumerate(ledgers) for i in range(50))
    )
    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    assert await count(path) == 250
    assert integrity(path) == "ok"
    assert not list(path.parent.glob("*.new"))


async def test_a_closed_ledger_is_unavailable(path: Path, upload: Upload) -> None:
    ledger = at(path)
    async with ledger:
        pass
    with pytest.raises(Unavailable, match="closed"):
        await ledger.list_collections(None)
    with pytest.raises(Unavailable, match="closed"):
        await ledger.create_collection("acme", "docs", CollectionOptions())


async def test_closing_waits_for_what_was_begun(path: Path, upload: Upload) -> None:
    await filled(path, upload, 0)
    ledger = at(path)
    await ledger.open()
    tasks = [asyncio.create_task(ledger.accept("acme", "docs", [upload(f"{i}")])) for i in range(100)]
    await asyncio.sleep(0)
    await ledger.close()
    await asyncio.gather(*tasks)
    assert await count(path) == 100


# --- speed that does not fade


async def test_no_operation_reads_a_whole_table(path: Path, upload: Upload, pieces: Callable[..., list[Chunk]]) -> None:
    """Every statement of a document's life is explained by SQLite; only the few collections may be gone through."""
    statements: dict[str, Any] = {}

    def executing(*arguments: Any) -> None:
        _, _, statement, parameters, _, many = arguments
        statements[statement] = parameters[0] if many else parameters

    async with at(path) as ledger:
        event.listen(Engine, "before_cursor_execute", executing)
        try:
            await _live(ledger, upload, pieces)
        finally:
            event.remove(Engine, "before_cursor_execute", executing)
    with closing(sqlite3.connect(path)) as connection:
        plans = {
            statement: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in statements.items()
            if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        }
    assert len(plans) > 30
    scans = {statement: plan for statement, plan in plans.items() if any(_is_scan(step) for step in plan)}
    assert scans == {}


def _is_scan(step: str) -> bool:
    few = ("SCAN ledger_collections", "SCAN ledger_generations", "SCAN ledger_schema")
    return step.startswith("SCAN ledger_") and not step.startswith(few)


async def _live(ledger: Ledger, upload: Upload, pieces: Callable[..., list[Chunk]]) -> None:
    collection = await ledger.create_collection("acme", "docs", CollectionOptions())
    for content in "12":
        [accepted] = await ledger.accept("acme", "docs", [upload(content=content)])
        document = accepted.document
        await ledger.finish_version(document.version_id, pieces(document), pages=1)
    [failing] = await ledger.accept("acme", "docs", [upload("b")])
    await ledger.fail_version(failing.document.version_id, Failure(code="x", message="x"))
    await ledger.reopen_version(failing.document.version_id, "job")
    await ledger.cancel_version(failing.document.version_id)
    await ledger.accept("acme", "docs", [upload("b", "2")])
    await _live_batches(ledger, upload)
    await ledger.generations.start("acme", "docs", "idx_1", CollectionOptions(), "job")
    await ledger.generations.move("idx_1", "chk", 1)
    await ledger.generations.building_of(collection.id)
    await ledger.generations.switch("idx_1")
    await ledger.generations.retired(older_than_s=0)
    await ledger.generations.forget(collection.id)
    await ledger.get_version(document.version_id)
    await ledger.get_document("acme", document.id)
    await ledger.list_documents("acme", cursor=document.id)
    await ledger.list_documents("acme", "docs", cursor=document.id)
    await ledger.list_documents("acme", "docs", frozenset({DocumentStatus.FAILED}))
    await ledger.list_documents("acme", "docs", name="b")
    await ledger.list_chunks("acme", document.id)
    await ledger.pending_versions()
    await ledger.get_chunks(collection.id, [chunk.id for chunk in pieces(document)])
    await ledger.scan_chunks(collection.id)
    await ledger.live_blobs(["1" * 64])
    await ledger.delete_document("acme", document.id)
    await ledger.forget([one.version_id for one in await ledger.garbage()])
    await ledger.delete_collection("acme", "docs")
    key, secret = await ledger.create_api_key("acme", "ci", [])
    await ledger.find_api_key(secret)
    await ledger.revoke_api_key(key.id)


async def _live_batches(ledger: Ledger, upload: Upload) -> None:
    new = NewBatch(job_id="job", sources=[NewSource(kind=SourceKind.URL, name="u")], idempotency_key="k")
    batch, _ = await ledger.batches.create("acme", "docs", new)
    await ledger.batches.gathering()
    await ledger.batches.work(batch.id)
    await ledger.batches.sources(batch.id)
    failure = Failure(code="x", message="x")
    items = [NewItem(source=1, name="x", version=upload("x")), NewItem(source=1, name="y", error=failure)]
    await ledger.batches.add(batch.id, Position(), Position(source=2), items)
    await ledger.batches.items("acme", batch.id, frozenset({BatchItemState.REFUSED}))
    await ledger.batches.close(batch.id)
    await ledger.batches.gather_again("acme", batch.id, "job")
    await ledger.batches.cancel("acme", batch.id)
    await ledger.batches.list("acme", cursor=batch.id)
    await ledger.batches.forget(older_than_s=-1)
