"""What is LanceDB's own: the disk, other processes, the indexes of large collections."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.errors import DataError, PenstockError
from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, StoresOptions, open_index
from penstock.stores.lance_maintenance import FRESH_ROWS, is_due
from penstock.stores.lancedb import LanceIndex

DIMENSIONS = 16


def rows(first: int, count: int, *, dimensions: int = DIMENSIONS, word: str = "river") -> list[IndexRow]:
    vectors = np.random.default_rng(first).normal(size=(count, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        IndexRow(
            chunk_id=f"chk_{i}",
            document_id=f"doc_{i // 4}",
            version_id=f"ver_{i // 4}",
            text=f"{word} number{i}",
            vector=vectors[i - first],
            metadata={"n": i, "even": i % 2 == 0},
        )
        for i in range(first, first + count)
    ]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lancedb://{tmp_path / 'index'}"


async def found(index: IndexStore, **query: Any) -> set[str]:
    return {one.chunk_id for one in (await index.search("col", IndexQuery(**query))).candidates}


async def test_rows_outlive_the_process(url: str) -> None:
    async with open_index(url) as index:
        await index.create("col", DIMENSIONS)
        await index.upsert("col", rows(0, 5))
    async with open_index(url) as index:
        assert await index.count("col") == 5
        assert await found(index, k=5, text="number3") == {"chk_3"}
        with pytest.raises(DataError, match="16 dimensions, not 3"):
            await index.create("col", 3)


async def test_another_store_sees_every_change_at_once(url: str) -> None:
    async with open_index(url) as ours, open_index(url) as theirs:
        await ours.create("col", DIMENSIONS)
        await theirs.upsert("col", rows(0, 8))
        assert await ours.count("col") == 8
        assert await found(ours, k=9, text="number7") == {"chk_7"}
        await theirs.delete("col", version_ids=["ver_1"])
        assert await ours.count("col") == 4
        await theirs.drop("col")
        assert await ours.count("col") == 0
        assert await found(ours, k=9, text="river") == set()
        await theirs.create("col", 3)
        await ours.upsert("col", rows(0, 2, dimensions=3))
        assert await theirs.count("col") == 2
        await theirs.drop("col")
        await theirs.create("col", DIMENSIONS)
        await theirs.upsert("col", rows(40, 3, word="turbine"))
        assert await found(ours, k=9, text="turbine") == {"chk_40", "chk_41", "chk_42"}
        assert await found(ours, k=9, vector=rows(0, 1)[0].vector) == {"chk_40", "chk_41", "chk_42"}


async def test_two_stores_write_and_tidy_at_once_without_loss(url: str) -> None:
    async with open_index(url) as ours, open_index(url) as theirs:
        await ours.create("col", DIMENSIONS)

        async def write(index: IndexStore, first: int) -> None:
            for start in range(first, first + 200, 20):
                await index.upsert("col", rows(start, 20))

        async def tidy(index: IndexStore) -> None:
            for _ in range(3):
                await index.optimise("col")

        async with asyncio.TaskGroup() as group:
            group.create_task(write(ours, 0))
            group.create_task(write(theirs, 100))
            group.create_task(tidy(ours))
            group.create_task(tidy(theirs))
        assert await ours.count("col") == await theirs.count("col") == 300
        assert len(await found(theirs, k=400, vector=rows(0, 1)[0].vector)) == 300


async def test_a_large_collection_is_searched_by_its_indexes(url: str) -> None:
    async with open_index(url, StoresOptions(vector_index_rows=1_000)) as index:
        await index.create("col", DIMENSIONS)
        stored = rows(0, 3_000)
        for start in range(0, 3_000, 1_000):
            await index.upsert("col", stored[start : start + 1_000])
        await index.optimise("col")
        await index.upsert("col", rows(3_000, 50, word="fresh"))
        assert isinstance(index, LanceIndex)
        indexed = {column for one in await index.tables["col"].handle.list_indices() for column in one.columns}
        assert indexed == {"terms", "vector", "facets", "chunk_id", "document_id", "version_id"}
        matrix = np.stack([row.vector for row in stored])
        hits = 0
        for number in range(0, 3_000, 100):
            exact = {f"chk_{i}" for i in np.argpartition(-(matrix @ stored[number].vector), 10)[:10]}
            hits += len(exact & await found(index, k=10, vector=stored[number].vector))
        assert hits >= 0.95 * 300
        assert len(await found(index, k=100, text="fresh")) == 50
        assert await found(index, k=10, text="river", filter=parse_filter({"n": {"gte": 1_500, "lt": 1_503}})) == {
            f"chk_{i}" for i in (1_500, 1_501, 1_502)
        }
        await index.delete("col", version_ids=["ver_375"])
        assert await found(index, k=10, text="river", filter=parse_filter({"n": {"gte": 1_500, "lt": 1_503}})) == set()
        await index.upsert("col", rows(2_000, 500, word="again"))
        await index.optimise("col")
        assert await index.count("col") == 3_046
        assert len(await found(index, k=1_000, text="again")) == 500


def contents(folder: Path) -> Iterator[bytes]:
    yield from (file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_deleted_text_leaves_the_disk(url: str, tmp_path: Path) -> None:
    async with open_index(url, StoresOptions(retention_s=0.001)) as index:
        await index.create("col", DIMENSIONS)
        await index.upsert("col", [*rows(0, 4, word="plutonium"), *rows(4, 4)])
        await index.optimise("col")
        assert any(b"plutonium" in content for content in contents(tmp_path))
        await index.delete("col", version_ids=["ver_0"])
        await index.optimise("col")
        assert await index.count("col") == 4
        assert not any(b"plutonium" in content for content in contents(tmp_path))


async def test_upkeep_waits_for_a_pause_and_comes_once_more_to_wipe(url: str) -> None:
    options = StoresOptions(pause_s=10, retention_s=60)
    async with open_index(url, options) as index:
        await index.create("col", DIMENSIONS)
        assert isinstance(index, LanceIndex)
        table = index.tables["col"]

        async def due(*, written_ago: float, tidied_ago: float) -> bool:
            now = time.monotonic()
            table.last_write, table.last_optimise = now - written_ago, now - tidied_ago
            return await is_due(table, options)

        assert not await due(written_ago=1, tidied_ago=100)
        assert await due(written_ago=11, tidied_ago=100)
        assert not await due(written_ago=11, tidied_ago=5)
        assert await due(written_ago=61, tidied_ago=50)
        assert not await due(written_ago=100, tidied_ago=30)
        await index.upsert("col", rows(0, FRESH_ROWS + 1))
        assert await due(written_ago=1, tidied_ago=100)  # much is not indexed yet
        await index.optimise()
        assert not await is_due(table, options)


async def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file")
    with pytest.raises(DataError, match="index"):
        async with open_index(f"lancedb://{tmp_path / 'index'}"):
            pass


async def test_damaged_files_give_an_error_that_says_what_to_do(url: str, tmp_path: Path) -> None:
    async with open_index(url) as index:
        await index.create("col", DIMENSIONS)
        await index.upsert("col", rows(0, 50))
    for file in (tmp_path / "index" / "col.lance" / "data").iterdir():
        file.write_bytes(b"\x00" * 100)
    with pytest.raises(PenstockError, match=r"(?s)Could not .*col"):
        async with open_index(url) as index:
            await index.search("col", IndexQuery(k=5, vector=rows(0, 1)[0].vector))


WRITER = """
import asyncio, sys
sys.path.insert(0, {tests!r})
from test_lancedb import rows, DIMENSIONS
from penstock.stores import open_index

async def main():
    async with open_index({url!r}) as index:
        await index.create("col", DIMENSIONS)
        async with asyncio.TaskGroup() as group:
            group.create_task(tidy(index, {tidies}))
            for start in range(0, 100_000, 50):
                await index.upsert("col", rows(start, 50))
                print(start + 50, flush=True)

async def tidy(index, tidies):
    while tidies:
        await index.optimise("col")
        await asyncio.sleep(0)

asyncio.run(main())
"""


def kill_while_writing(url: str, *, tidies: bool) -> int:
    """The number of rows that a writer said it had written before it died of being killed."""
    script = WRITER.format(tests=str(Path(__file__).parent), url=url, tidies=tidies)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        confirmed = [int(writer.stdout.readline()) for _ in range(5)]
        writer.kill()
        confirmed += [int(line) for line in writer.stdout if line.endswith("\n")]
    return confirmed[-1]


@pytest.mark.case(1)
@pytest.mark.parametrize("tidies", [False, True], ids=["writes", "writes-and-optimises"])
async def test_a_killed_writer_leaves_whole_commits(url: str, tidies: bool) -> None:
    confirmed = kill_while_writing(url, tidies=tidies)
    async with open_index(url) as index:
        count = await index.count("col")
        assert count in {confirmed, confirmed + 50}
        assert len(await found(index, k=count + 10, text="river")) == count
        await index.optimise("col")
        await index.upsert("col", rows(0, 60))
        assert await index.count("col") == count


def test_the_engine_is_imported_only_when_opened() -> None:
    script = "import sys, penstock.stores; sys.exit('lancedb' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
