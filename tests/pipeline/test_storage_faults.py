"""The N-th call to any store fails, before its effect or after it: what is seen is the state before or the state after.

Then whoever asked asks again, upkeep runs, and all is as if nothing had happened.
"""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import PenstockError, StorageFull, Unavailable
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.ingest import Ingested
from penstock.pipeline.intake import IntakeOptions
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.pipeline.upkeep import Upkeep, UpkeepOptions
from penstock.stores.base import IndexQuery
from penstock.testing.house import House, open_house, report, vector_of
from penstock.types import Document, DocumentStatus

OLD = "\n\n\n".join(f"The old sluice of chamber {number} opens at dawn." * 4 for number in range(6)).encode()
NEW = "\n\n\n".join(f"The new sluice of chamber {number} opens at noon." * 4 for number in range(9)).encode()
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs")
SEAMS = ("ledger", "jobs", "blobs", "index")


@dataclass
class Faults:
    """Counts the calls to the stores, and fails the one that is chosen; `after`: its effect is there all the same."""

    fail_at: int
    after: bool
    calls: int = 0
    failed: list[str] = field(default_factory=list)

    async def call(self, name: str, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls != self.fail_at:
            return await function(*args, **kwargs)
        if self.after:
            await function(*args, **kwargs)
        self.failed.append(name)
        raise Unavailable(f"{name} failed by intention")


class Faulty:
    """A store whose coroutines are counted and may fail."""

    def __init__(self, store: Any, name: str, faults: Faults) -> None:
        self._store, self._name, self._faults = store, name, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return partial(self._faults.call, f"{self._name}.{name}", found)


def faulty(house: House, faults: Faults) -> House:
    stores: dict[str, Any] = {seam: Faulty(getattr(house, seam), seam, faults) for seam in SEAMS}
    return replace(house, writer=IndexWriter(stores["index"]), **stores)


def upkeep(house: House) -> Upkeep:
    return Upkeep(
        worker_id="wrk",
        ledger=house.ledger,
        jobs=house.jobs,
        index=house.index,
        blobs=house.blobs,
        options=UpkeepOptions(),
        intake=IntakeOptions(),
    )


async def add(house: House, data: bytes) -> Ingested:
    document = await house.upload("a.txt", data)
    return await house.ingestor.ingest(document.version_id, report)


async def seen(house: House) -> tuple[str, ...]:
    """What readers see of the document: the texts of its passages."""
    document = await the_document(house)
    if document is None:
        return ()
    return tuple(chunk.text for chunk in await house.ledger.list_chunks("default", document.id, limit=1000))


async def the_document(house: House) -> Document | None:
    page = await house.ledger.list_documents("default", "default")
    assert len(page.documents) <= 1
    return page.documents[0] if page.documents else None


async def assert_whole(house: House, texts: tuple[str, ...]) -> None:
    """Ledger, index and counts say the same, and nothing is left over."""
    await upkeep(house).purge()
    collection = await house.ledger.get_collection("default", "default")
    assert (collection.documents, collection.chunks) == (1, len(texts))
    assert await house.index.count(collection.id) == len(texts)
    assert await house.ledger.garbage() == []
    for text in texts:
        query = IndexQuery(k=3, vector=vector_of(text), text=text)
        found = await house.index.search(collection.id, query)
        chunks = await house.ledger.get_chunks(collection.id, [one.chunk_id for one in found.candidates])
        assert text in {one.chunk.text for one in chunks.values()}


@pytest.mark.case(18)
@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
async def test_the_nth_storage_call_fails(tmp_path: Path, after: bool) -> None:
    failed = set[str]()
    async with ParserPool(ParsingOptions(processes=1)) as parsers:
        async with open_house(tmp_path / "whole") as opened:
            house = replace(opened, parsers=parsers)
            await add(house, OLD)
            before = await seen(house)
            await add(house, NEW)
            final = await seen(house)
        for fail_at in range(1, 100):
            faults = Faults(fail_at, after)
            async with open_house(tmp_path / f"n{fail_at}") as opened:
                house = replace(opened, parsers=parsers)
                await add(house, OLD)
                with suppress(Unavailable):
                    await add(faulty(house, faults), NEW)
                assert await seen(house) in {before, final}
                await upkeep(house).reconcile()
                await add(house, NEW)  # as the client does, and the worker with its next attempt
                assert await seen(house) == final
                await assert_whole(house, final)
            if not faults.failed:
                break
            failed.update(faults.failed)
    assert fail_at >= 8
    assert {name.partition(".")[0] for name in failed} == set(SEAMS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run([*MOUNT, folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system of its own")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill_up(folder: Path, free_bytes: int) -> Path:
    """A file that leaves no more room than that."""
    room = os.statvfs(folder)
    file = folder / "full"
    file.write_bytes(bytes(max(0, room.f_bavail * room.f_bsize - free_bytes)))
    return file


@pytest.mark.case(17)
@pytest.mark.parametrize("first", [False, True], ids=["empty", "in use"])
async def test_a_disk_that_fills_up_under_the_index(tmp_path: Path, small_disk: Path, first: bool) -> None:
    async with open_house(tmp_path / "house", index_url=f"lancedb://{small_disk / 'index'}") as house:
        expected = [await house.ingest("first.txt", OLD)] if first else []
        for pages in range(4):
            document = await house.upload(f"{pages}.txt", NEW)
            file = fill_up(small_disk, pages * 4096)
            with pytest.raises(StorageFull):
                await house.ingestor.ingest(document.version_id, report)
            assert await house.ledger.list_chunks("default", document.id) == []
            file.unlink()
            expected.append(await house.ingestor.ingest(document.version_id, report))
            chunks = sum(one.chunks for one in expected)
            assert await house.index.count(document.collection_id) == chunks
            assert (await house.ledger.get_collection("default", "default")).chunks == chunks


@pytest.mark.case(20)
async def test_an_index_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        document = await house.upload("a.txt", NEW)
        away = replace(house, index=(broken := _Away(house.index)), writer=IndexWriter(broken))  # type: ignore[arg-type]
        with pytest.raises(Unavailable) as caught:
            await away.ingestor.ingest(document.version_id, report)
        assert caught.value.retryable
        found = await the_document(house)
        assert found is not None
        assert found.status is DocumentStatus.PENDING
        await house.cache.__aexit__(None, None, None)  # what was kept is written
        assert not (await house.ingestor.ingest(document.version_id, report)).parsed, "its passages were kept"


@pytest.mark.case(20)
async def test_an_index_of_other_dimensions_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        document = await house.upload("a.txt", NEW)
        await house.index.create(document.collection_id, 3)
        with pytest.raises(PenstockError, match="dimensions") as caught:
            await house.ingestor.ingest(document.version_id, report)
        assert not caught.value.retryable


@pytest.mark.case(20)
async def test_an_index_that_was_dropped_is_made_anew(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        await house.ingest("a.txt", OLD)
        collection = await house.ledger.get_collection("default", "default")
        await house.index.drop(collection.id)
        ingested = await house.ingest("b.txt", NEW)
        assert await house.index.count(collection.id) == ingested.chunks


class _Away:
    """An index that does not answer."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._index, name)
        return _unavailable if asyncio.iscoroutinefunction(found) else found


async def _unavailable(*args: object, **kwargs: object) -> None:
    raise Unavailable("The index is away.")
