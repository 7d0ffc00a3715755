"""Index writes of many callers: merged into few commits, each caller told of its own."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from penstock.errors import Unavailable
from penstock.pipeline import index_writer
from penstock.pipeline.index_writer import IndexWriter
from penstock.stores.base import IndexRow
from penstock.stores.memory import MemoryIndex


class SlowIndex(MemoryIndex):
    """The memory engine with a gate before each commit, and a count of commits."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.commits: list[int] = []
        self.fail_next = False

    async def upsert(self, collection_id: str, rows: Sequence[IndexRow]) -> None:
        await self.gate.wait()
        self.commits.append(len(rows))
        if self.fail_next:
            self.fail_next = False
            raise Unavailable("the disk is away")
        await super().upsert(collection_id, rows)


def row(number: int) -> IndexRow:
    vector = np.array([1, 0], np.float32)
    return IndexRow(chunk_id=f"c{number}", document_id="d", version_id="v", text="words", vector=vector)


async def test_what_arrives_during_a_commit_becomes_the_next_one() -> None:
    async with SlowIndex() as index, IndexWriter(index) as writer:
        await index.create("col", 2)
        writes = [asyncio.create_task(writer.write("col", [row(i)])) for i in range(10)]
        await asyncio.sleep(0)
        first = asyncio.create_task(writer.write("col", [row(99)]))
        index.gate.set()
        await asyncio.gather(*writes, first)
        assert sum(index.commits) == 11
        assert len(index.commits) <= 2
        assert await index.count("col") == 11


async def test_a_failed_commit_is_told_to_its_callers_alone() -> None:
    async with SlowIndex() as index, IndexWriter(index) as writer:
        await index.create("col", 2)
        index.gate.set()
        index.fail_next = True
        with pytest.raises(Unavailable, match="disk"):
            await writer.write("col", [row(1)])
        await writer.write("col", [row(1)])
        assert await index.count("col") == 1


async def test_a_caller_that_leaves_does_not_take_others_with_it() -> None:
    async with SlowIndex() as index, IndexWriter(index) as writer:
        await index.create("col", 2)
        leaving = asyncio.create_task(writer.write("col", [row(1)]))
        staying = asyncio.create_task(writer.write("col", [row(2)]))
        await asyncio.sleep(0)
        leaving.cancel()
        index.gate.set()
        await staying
        assert await index.count("col") == 2


async def test_after_a_commit_writes_gather_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_writer, "LONGEST_REST_S", 1000.0)
    monkeypatch.setattr(index_writer, "REST", 1e6)
    monkeypatch.setattr(index_writer, "ENOUGH_ROWS", 5)
    async with SlowIndex() as index, IndexWriter(index) as writer:
        await index.create("col", 2)
        first = asyncio.create_task(writer.write("col", [row(0)]))
        await asyncio.sleep(0.01)  # that is how long the first commit takes
        index.gate.set()
        await first
        writes = []
        for number in range(1, 6):
            writes.append(asyncio.create_task(writer.write("col", [row(number)])))
            for _ in range(3):
                await asyncio.sleep(0)
        await asyncio.gather(*writes)
        assert index.commits == [1, 5]


async def test_a_place_that_another_process_dropped_is_made_again() -> None:
    async with SlowIndex() as index, IndexWriter(index) as writer:
        index.gate.set()
        await asyncio.gather(writer.write("col", [row(1)]), writer.write("col", [row(2)], create=True))
        await index.drop("col")
        await writer.write("col", [row(3)], create=True)
        assert await index.count("col") == 1
