"""The copy in memory of a LanceDB table: right after every change, whoever made it, and never too large."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, LaneHits, StoresOptions, open_index
from penstock.stores.lancedb import LanceIndex
from penstock.stores.memory import MemoryIndex
from penstock.stores.mirror import Mirror

DIMENSIONS = 16
WORDS = ["river", "gate", "valve", "桥梁", "crack", "turbine"]


def row(number: int, salt: int = 0) -> IndexRow:
    vector = np.random.default_rng([number, salt]).normal(size=DIMENSIONS).astype(np.float32)
    return IndexRow(
        chunk_id=f"chk_{number}",
        document_id=f"doc_{number // 6}",
        version_id=f"ver_{number // 3}",
        text=" ".join(random.Random(number + salt).choices(WORDS, k=number % 5)),
        vector=vector / np.linalg.norm(vector),
        metadata={"n": number + salt, "even": number % 2 == 0},
    )


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"lancedb://{tmp_path / 'index'}"


@pytest.fixture
async def ours(url: str) -> AsyncIterator[LanceIndex]:
    async with open_index(url) as index:
        assert isinstance(index, LanceIndex)
        yield index


async def held(index: IndexStore) -> bool:
    """Whether searches are answered from memory now."""
    assert isinstance(index, LanceIndex)
    table = index.tables["col"]
    return await table.copy.current(table.dimensions) is not None


def found(hits: LaneHits) -> dict[str, Any]:
    return {one.chunk_id: (one.dense, one.fulltext) for one in hits.candidates}


async def same(one: IndexStore, other: IndexStore, **query: Any) -> None:
    ours, theirs = await one.search("col", IndexQuery(**query)), await other.search("col", IndexQuery(**query))
    expected = {key: pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in found(theirs).items()}
    assert found(ours) == expected
    assert ours.rows == theirs.rows
    assert ours.fulltext_floor == pytest.approx(theirs.fulltext_floor, rel=1e-4)
    assert (ours.dense_mean, ours.dense_std) == pytest.approx((theirs.dense_mean, theirs.dense_std), abs=1e-5)


async def test_it_follows_random_changes_of_two_processes(url: str, ours: LanceIndex) -> None:
    """What is deleted counts no more, not even for how rare a term is."""
    rng = random.Random(5)
    async with open_index(url) as theirs, MemoryIndex() as reference:
        everyone = (ours, theirs, reference)
        await ours.create("col", DIMENSIONS)
        await reference.create("col", DIMENSIONS)
        for turn in range(25):
            writer = rng.choice([ours, theirs])
            if turn % 4 == 3:
                gone = [f"ver_{rng.randrange(40)}" for _ in range(6)]
                await writer.delete("col", version_ids=gone)
                await reference.delete("col", version_ids=gone)
            else:
                rows = [row(rng.randrange(120), turn) for _ in range(10)]
                await writer.upsert("col", rows)
                await reference.upsert("col", rows)
            if turn % 10 == 9:
                await writer.optimise("col")
            where = rng.choice([None, {"even": True}, {"n": {"gte": 60}}, {"or": [{"n": 3}, {"not": {"even": True}}]}])
            for one in everyone[:2]:
                assert await held(one)
                await same(
                    one, reference, k=120, vector=row(turn, 9).vector, text="river gate 桥", filter=parse_filter(where)
                )


async def test_a_table_that_was_made_anew_elsewhere_is_copied_anew(url: str, ours: LanceIndex) -> None:
    async with open_index(url) as theirs:
        await ours.create("col", DIMENSIONS)
        await ours.upsert("col", [row(1), row(2)])
        assert set(found(await ours.search("col", IndexQuery(k=5, vector=row(1).vector)))) == {"chk_1", "chk_2"}
        await theirs.drop("col")
        await theirs.create("col", DIMENSIONS)
        await theirs.upsert("col", [row(3), row(4)])
        assert set(found(await ours.search("col", IndexQuery(k=5, vector=row(1).vector)))) == {"chk_3", "chk_4"}


async def test_many_rows_are_copied_in_the_background_and_found_meanwhile(url: str, ours: LanceIndex) -> None:
    rows = [row(i) for i in range(9_000)]
    await ours.create("col", DIMENSIONS)
    await ours.upsert("col", rows)
    matrix = np.stack([one.vector for one in rows])
    best = {f"chk_{i}" for i in np.argpartition(-(matrix @ rows[7].vector), 10)[:10]}
    copied = []
    for _ in range(2):
        copied.append(await held(ours))
        assert len(set(found(await ours.search("col", IndexQuery(k=10, vector=rows[7].vector)))) & best) >= 9
        await ours.tables["col"].copy.done()
    assert copied == [False, True]
    hits = await ours.search(
        "col", IndexQuery(k=20, vector=rows[7].vector, filter=parse_filter({"n": {"lt": 12}, "even": True}))
    )
    assert set(found(hits)) == {f"chk_{i}" for i in range(0, 12, 2)}


async def test_what_does_not_fit_in_is_searched_on_disk(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_index(url, StoresOptions(memory_mb=1)) as index:
        assert isinstance(index, LanceIndex)
        await index.create("col", DIMENSIONS)
        await index.upsert("col", [row(i) for i in range(300)])
        assert await held(index)
        await index.upsert("col", [row(i) for i in range(300, 600)])
        assert not caplog.records
        for _ in range(3):
            assert not await held(index)
        (said,) = caplog.messages
        assert "600 chunks of col" in said
        assert "stores.memory_mb" in said
        assert len(found(await index.search("col", IndexQuery(k=600, vector=row(1).vector)))) == 600


def test_many_small_writes_become_few_segments() -> None:
    mirror = Mirror(DIMENSIONS)
    for start in range(0, 900, 3):
        mirror.sync(None, held_rows(range(start, start + 3)))
        if start % 90 == 0:
            mirror.sync(np.arange(start // 2, start + 3, dtype=np.uint64), held_rows(range(0)))
    assert mirror.rows == 900 - 405
    assert mirror.segments <= 20
    hits = mirror.search(IndexQuery(k=900, vector=row(1).vector, text="river"), ["river"])
    assert {one.chunk_id for one in hits.candidates} == {f"chk_{i}" for i in range(405, 900)}
    assert {one.chunk_id for one in hits.candidates if one.fulltext} == {f"chk_{i}" for i in range(406, 900, 2)}


def test_what_only_words_found_has_its_cosine_in_every_segment() -> None:
    mirror = Mirror(DIMENSIONS)
    for start in range(0, 120, 20):
        mirror.sync(None, held_rows(range(start, start + 20)))
    assert mirror.segments == 6
    hits = mirror.search(IndexQuery(k=60, vector=row(1).vector, text="river"), ["river"])
    cosines = {f"chk_{i}": float(row(i).vector @ row(1).vector) for i in range(120)}
    assert {one.chunk_id: one.dense for one in hits.candidates} == {
        one.chunk_id: pytest.approx(cosines[one.chunk_id], abs=1e-5) for one in hits.candidates
    }
    assert sum(one.fulltext != 0 for one in hits.candidates) == 60
    assert len(hits.candidates) > 60


def held_rows(numbers: range) -> pa.Table:
    """Rows as they are copied; the even ones have the word river."""
    return pa.table(
        {
            "chunk_id": pa.array([f"chk_{i}" for i in numbers], pa.string()),
            "terms": pa.array(["gate" if i % 2 else "river valve" for i in numbers], pa.string()),
            "vector": pa.array([row(i).vector for i in numbers], pa.list_(pa.float32(), DIMENSIONS)),
            "facets": pa.array([[] for _ in numbers], pa.list_(pa.string())),
            "_rowid": pa.array(list(numbers), pa.uint64()),
        }
    )
