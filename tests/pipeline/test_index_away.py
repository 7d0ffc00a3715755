"""The index is away, for longer than all attempts of a job would last: nothing is lost, nobody has to act."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from penstock.errors import Unavailable
from penstock.jobs.worker import Worker
from penstock.pipeline import handlers
from penstock.pipeline.handlers import Handlers
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.intake import IntakeOptions
from penstock.pipeline.retrieve import Retriever
from penstock.stores.base import IndexStore
from penstock.testing.house import House, open_house
from penstock.types import DocumentStatus, JobState, NewJob

pytestmark = pytest.mark.case(20)

TEXT = "\n\n\n".join(f"The sluice of chamber {number} opens at dawn. " * 4 for number in range(6))
DOCUMENTS = 3


class Away:
    """An index whose server may be away; `asked` counts in vain."""

    def __init__(self, index: IndexStore) -> None:
        self._index = index
        self.away = True
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._index, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: object, **kwargs: object) -> object:
            if self.away:
                self.asked += 1
                raise Unavailable(f"Could not {name}: connection refused", code="index_unavailable")
            return await found(*args, **kwargs)

        return call


@asynccontextmanager
async def working(house: House, index: Away) -> AsyncIterator[None]:
    """A worker over the house, its index the given one."""
    store = cast("IndexStore", index)
    house = replace(house, index=store, writer=IndexWriter(store))
    given = Handlers(
        ledger=house.ledger,
        ingestor=house.ingestor,
        retriever=Retriever(house.ledger, store, house.models),
        answerer=None,  # type: ignore[arg-type]  # nothing is asked
        pictures=None,  # type: ignore[arg-type]
    )
    worker = Worker(house.jobs, given.by_kind())
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        yield
        worker.stop()


async def test_documents_wait_for_it_and_lose_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(handlers, "LONGEST_PAUSE_S", 0.01)
    async with open_house(tmp_path) as house:
        index = Away(house.index)
        documents = [await house.upload(f"{number}.txt", f"{number} {TEXT}".encode()) for number in range(DOCUMENTS)]
        async with working(house, index):
            while index.asked <= DOCUMENTS * IntakeOptions().max_attempts:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            waiting = (await house.ledger.list_documents("default", "default")).documents
            assert {document.status for document in waiting} == {DocumentStatus.PENDING}
            index.away = False
            jobs = [await house.jobs.wait(document.job_id, timeout_s=100) for document in documents]
        assert {(job.state, job.attempt) for job in jobs} == {(JobState.SUCCEEDED, 1)}
        collection = await house.ledger.get_collection("default", "default")
        assert collection.documents == DOCUMENTS
        assert await house.index.count(collection.id) == collection.chunks


async def test_a_search_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ingest("a.txt", TEXT.encode())
        async with working(house, Away(house.index)):
            search = NewJob(kind="search", payload={"collection": "default", "query": "sluice"}, max_attempts=1)
            (accepted,) = await house.jobs.enqueue([search])
            job = await house.jobs.wait(accepted.job.id, timeout_s=100)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, "refused" in job.error.message) == ("index_unavailable", True)
