"""What is PostgreSQL's own: its errors, its restarts, deadlocks, and several machines on it."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from penstock.errors import ConfigError, MissingDependency, NotFound, Unavailable
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.base import NewVersion
from penstock.types import CollectionOptions

Upload = Callable[..., NewVersion]


async def test_many_may_open_a_new_database_at_once(postgres_url: str, upload: Upload) -> None:
    ledgers = [open_ledger(postgres_url) for _ in range(4)]
    await asyncio.gather(*(ledger.open() for ledger in ledgers))
    await ledgers[0].create_collection("acme", "docs", CollectionOptions())
    await asyncio.gather(
        *(ledger.accept("acme", "docs", [upload(f"{n}-{i}")]) for n, ledger in enumerate(ledgers) for i in range(25)),
        *(ledger.accept("acme", "docs", [upload("same")]) for ledger in ledgers for i in range(10)),
    )
    assert len((await ledgers[1].list_documents("acme", limit=1000)).documents) == 101
    assert len(await ledgers[2].pending_versions()) == 101
    await asyncio.gather(*(ledger.close() for ledger in ledgers))


async def test_delete_purge_and_ingest_at_once_do_not_block_each_other(postgres_url: str, upload: Upload) -> None:
    async def live(ledger: Ledger, name: str) -> None:
        for i in range(15):
            [accepted] = await ledger.accept("acme", "docs", [upload(name, f"{i}")])
            await ledger.finish_version(accepted.document.version_id, [], pages=1)
            if i % 5 == 4:
                with suppress(NotFound):  # the other was first
                    await ledger.delete_document("acme", accepted.document.id)

    async def purge(ledger: Ledger) -> None:
        for _ in range(30):
            await ledger.forget([one.version_id for one in await ledger.garbage()])

    async with open_ledger(postgres_url) as one, open_ledger(postgres_url) as two:
        await one.create_collection("acme", "docs", CollectionOptions())
        await asyncio.gather(*(live(one if i % 2 else two, f"{i % 3}") for i in range(8)), purge(one))
        collection = await two.get_collection("acme", "docs")
        shown = [d for d in (await two.list_documents("acme")).documents if d.searchable_version]
        assert collection.documents == len(shown)


async def test_a_restart_of_the_server_is_survived(postgres: Any, postgres_url: str, upload: Upload) -> None:
    async with open_ledger(postgres_url) as ledger:
        await ledger.create_collection("acme", "docs", CollectionOptions())
        await asyncio.to_thread(postgres.stop)
        with pytest.raises(Unavailable):
            await ledger.get_collection("acme", "docs")
        await asyncio.to_thread(postgres.start)
        await ledger.get_collection("acme", "docs")
        await ledger.accept("acme", "docs", [upload()])


async def test_a_server_that_is_away_is_unavailable() -> None:
    pytest.importorskip("asyncpg", reason="needs asyncpg")
    with pytest.raises(Unavailable, match="cannot be reached") as told:
        await open_ledger("postgresql://penstock:secret@127.0.0.1:1/ledger").open()
    assert "secret" not in str(told.value)


async def test_a_database_that_is_not_there(postgres_url: str) -> None:
    with pytest.raises(ConfigError, match="no_such"):
        await open_ledger(postgres_url.replace("@/postgres", "@/no_such")).open()


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingDependency, match=r"penstock\[postgres\]"):
        open_ledger("postgresql://localhost/ledger")
