"""The contract of the index, over every engine."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.errors import DataError, NotFound
from penstock.filters import matches, parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, LaneHits
from penstock.stores.analyzer import Analyzer
from penstock.stores.bm25 import Postings
from penstock.stores.memory import MemoryIndex
from penstock.types import JSON

DIMENSIONS = 8
ENGLISH = "bridge river permit crack inspector concrete load valve penstock turbine gate"
CHINESE = "桥梁 检查 混凝土 裂缝 许可证"
WORDS = f"{ENGLISH} {CHINESE}".split()


def unit(seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return vector / np.linalg.norm(vector)


def row(number: int, *, text: str | None = None, version: int | None = None, **metadata: Any) -> IndexRow:
    version = number // 3 if version is None else version
    words = random.Random(number).choices(WORDS, k=12)
    return IndexRow(
        chunk_id=f"chk_{number}",
        document_id=f"doc_{version // 2}",
        version_id=f"ver_{version}",
        text=" ".join(words) if text is None else text,
        vector=unit(number),
        metadata=metadata,
    )


def ids(hits: LaneHits) -> set[str]:
    return {candidate.chunk_id for candidate in hits.candidates}


def agree(found: Mapping[str, float | None], expected: Mapping[str, float], *, exact: bool) -> None:
    """Where BM25 is not the very one: the same rows, in much the same order."""
    if exact:
        assert found == pytest.approx(expected, rel=1e-5)
        return
    assert set(found) == set(expected)
    scores = np.array([(found[one] or 0.0, expected[one]) for one in expected]).T
    ranks = scores.argsort(axis=1).argsort(axis=1)
    assert float(np.corrcoef(ranks[0], ranks[1]).flat[1]) > 0.9


async def filled(index: IndexStore, rows: Sequence[IndexRow]) -> None:
    await index.create("col", DIMENSIONS)
    await index.upsert("col", rows)


async def test_a_collection_that_is_not_there_is_empty(index: IndexStore) -> None:
    assert await index.search("none", IndexQuery(k=5, vector=unit(1), text="river")) == LaneHits()
    assert await index.count("none") == 0
    await index.delete("none", version_ids=["ver_1"])
    await index.drop("none")
    await index.optimise("none")
    with pytest.raises(NotFound):
        await index.upsert("none", [row(1)])


async def test_an_empty_collection_finds_nothing(index: IndexStore) -> None:
    await index.create("col", DIMENSIONS)
    await index.upsert("col", [])
    assert await index.search("col", IndexQuery(k=5, vector=unit(1), text="river")) == LaneHits()


async def test_both_lanes_have_true_scores_and_fresh_rows_are_found_at_once(index: IndexStore) -> None:
    rows = [row(i) for i in range(60)]
    await filled(index, rows[:40])
    await index.optimise("col")
    await index.upsert("col", rows[40:])
    question = unit(1000)
    hits = await index.search("col", IndexQuery(k=10, vector=question))
    cosines = {r.chunk_id: float(r.vector @ question) for r in rows}
    best = sorted(cosines, key=cosines.__getitem__, reverse=True)[:10]
    assert ids(hits) == set(best)
    assert hits.rows == 60
    assert all(c.dense == pytest.approx(cosines[c.chunk_id], abs=1e-5) for c in hits.candidates)
    assert hits.dense_mean == pytest.approx(np.mean(list(cosines.values())), abs=1e-5)
    assert hits.dense_std == pytest.approx(np.std(list(cosines.values())), abs=1e-5)
    await index.optimise("col")
    hits = await index.search("col", IndexQuery(k=60, text="cracks in a concrete penstock"))
    analyzer, postings = Analyzer(), Postings()
    for r in rows:
        postings.add(r.chunk_id, analyzer.index_terms(r.text))
    expected = postings.scores(analyzer.index_terms("cracks concrete penstock"))
    agree({c.chunk_id: c.fulltext for c in hits.candidates}, expected, exact=index.exact_bm25)
    assert all(c.dense is None for c in hits.candidates)
    assert hits.fulltext_floor == 0.0


async def test_a_candidate_of_one_lane_has_its_score_in_the_other(index: IndexStore) -> None:
    await filled(index, [row(i, text="valve" if i == 7 else "gate") for i in range(50)])
    hits = await index.search("col", IndexQuery(k=3, vector=unit(20), text="valve"))
    by_id = {c.chunk_id: c for c in hits.candidates}
    assert len(by_id) == 4
    assert by_id["chk_7"].dense == pytest.approx(float(unit(7) @ unit(20)), abs=1e-5)
    assert by_id["chk_20"].dense == pytest.approx(1, abs=1e-5)
    assert by_id["chk_20"].fulltext == 0.0
    assert hits.fulltext_floor == 0.0
    full = await index.search("col", IndexQuery(k=3, text="gate"))
    assert full.fulltext_floor == pytest.approx(full.candidates[0].fulltext)


@pytest.mark.parametrize(
    "question", ["桥梁的裂缝", "裂縫", "CRACKED Bridges!", "pénstocks", "", "the", "'\"; --", "a" * 5000]
)
async def test_questions_of_any_kind(index: IndexStore, question: str) -> None:
    await filled(index, [row(1, text="桥梁裂缝检查"), row(2, text="The crack in the bridge"), row(3, text="penstock")])
    found = ids(await index.search("col", IndexQuery(k=5, text=question)))
    assert found == {
        "桥梁的裂缝": {"chk_1"},
        "裂縫": {"chk_1"},
        "CRACKED Bridges!": {"chk_2"},
        "pénstocks": {"chk_3"},
    }.get(question, set())


async def test_upsert_overwrites_by_chunk_id(index: IndexStore) -> None:
    await filled(index, [row(1, text="river"), row(1, text="valve"), row(2, text="river")])
    await index.upsert("col", [replace(row(2, text="turbine"), vector=unit(77))])
    assert await index.count("col") == 2
    assert ids(await index.search("col", IndexQuery(k=5, text="river"))) == set()
    assert ids(await index.search("col", IndexQuery(k=5, text="valve turbine"))) == {"chk_1", "chk_2"}
    (nearest,) = (await index.search("col", IndexQuery(k=1, vector=unit(77)))).candidates
    assert nearest.chunk_id == "chk_2"
    assert nearest.dense == pytest.approx(1, abs=1e-5)


async def test_delete_really_deletes(index: IndexStore) -> None:
    await filled(index, [row(i) for i in range(30)])
    await index.optimise("col")
    await index.delete("col", version_ids=["ver_1", "ver_nowhere"], document_ids=["doc_3"])
    gone = {f"chk_{i}" for i in (3, 4, 5, 18, 19, 20, 21, 22, 23)}
    for _ in range(2):
        assert await index.count("col") == 30 - len(gone)
        everything = await index.search("col", IndexQuery(k=30, vector=unit(3), text=" ".join(WORDS)))
        assert ids(everything) == {f"chk_{i}" for i in range(30)} - gone
        await index.optimise("col")
    await index.delete("col", version_ids=[f"ver_{i}" for i in range(1000)])
    assert await index.count("col") == 0
    await index.upsert("col", [row(5)])
    assert ids(await index.search("col", IndexQuery(k=5, vector=unit(5)))) == {"chk_5"}


async def test_wrong_vectors_are_refused_and_nothing_is_stored(index: IndexStore) -> None:
    await filled(index, [row(1)])
    for bad in (np.ones(DIMENSIONS + 1, np.float32), np.full(DIMENSIONS, np.nan, np.float32)):
        with pytest.raises(DataError):
            await index.upsert("col", [row(2), replace(row(3), vector=bad)])
    with pytest.raises(DataError, match="reindex"):
        await index.search("col", IndexQuery(k=1, vector=np.ones(DIMENSIONS - 1, np.float32)))
    with pytest.raises(DataError, match="reindex"):
        await index.create("col", DIMENSIONS + 1)
    await index.create("col", DIMENSIONS)
    assert await index.count("col") == 1


async def test_a_dropped_collection_can_be_made_anew_with_other_dimensions(index: IndexStore) -> None:
    await filled(index, [row(1)])
    await index.drop("col")
    assert await index.count("col") == 0
    await index.create("col", 3)
    await index.upsert("col", [replace(row(2), vector=np.array([0, 1, 0], np.float32))])
    assert await index.count("col") == 1


async def test_collections_do_not_see_each_other(index: IndexStore) -> None:
    await filled(index, [row(1)])
    await index.create("other", DIMENSIONS)
    await index.upsert("other", [row(2)])
    assert ids(await index.search("col", IndexQuery(k=5, vector=unit(1), text=" ".join(WORDS)))) == {"chk_1"}


async def test_ten_thousand_upserts_from_four_writers_lose_and_double_nothing(index: IndexStore) -> None:
    await index.create("col", DIMENSIONS)
    rows = [row(i, text=WORDS[i % len(WORDS)]) for i in range(8_500)]

    async def write(writer: int) -> None:
        for start in range(writer * 2_000, writer * 2_000 + 2_500, 500):
            await index.upsert("col", rows[start : start + 500])

    async def disturb() -> None:
        for _ in range(3):
            await index.optimise("col")
            await index.search("col", IndexQuery(k=5, vector=unit(1), text="river"))

    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(writer))
        group.create_task(disturb())
    assert await index.count("col") == 8_500
    await index.optimise("col")
    spread = [row.vector for row in rows[::500]]
    hits = [await index.search("col", IndexQuery(k=1, vector=vector)) for vector in spread]
    assert [ids(found) for found in hits] == [{f"chk_{i}"} for i in range(0, 8_500, 500)]


VALUES = (None, True, False, -3, 0, 2, 2.0, 0.5, -1.5, 1e300, -1e-9, 10**400, "", "a", "b'\"\\", "é\n", "n1", "ab")
FIELDS = ("x", "y z", "a.b", "q'\"\\$[", "数")


def random_metadata(rng: random.Random) -> dict[str, Any]:
    def content() -> Any:
        return rng.choice([rng.choice(VALUES), rng.choices(VALUES, k=rng.randrange(3)), {"k": 1}])

    return {name: content() for name in FIELDS if rng.random() < 0.6}


def random_filter(rng: random.Random, depth: int = 3) -> dict[str, Any]:
    values = [value for value in VALUES if value != 10**400]
    ranged = [value for value in values if isinstance(value, str) or type(value) in {int, float}]
    kind = rng.choice(["value", "ne", "in", "range", "exists", *(["not", "and", "or"] if depth else [])])
    if kind == "not":
        return {"not": random_filter(rng, depth - 1)}
    if kind in {"and", "or"}:
        return {kind: [random_filter(rng, depth - 1) for _ in range(2)]}
    conditions: dict[str, Any] = {
        "value": rng.choice(values),
        "ne": {"ne": rng.choice(values)},
        "in": {"in": rng.choices(values, k=2)},
        "range": {op: rng.choice(ranged) for op in rng.sample(["gt", "gte", "lt", "lte"], 2)},
        "exists": {"exists": rng.random() < 0.5},
    }
    return {rng.choice(FIELDS): conditions[kind]}


async def test_filters_mean_what_matches_says(index: IndexStore) -> None:
    rng = random.Random(7)
    rows = [replace(row(i, text="river"), metadata=random_metadata(rng)) for i in range(40)]
    await filled(index, rows)
    sizes = set()
    for _ in range(150):
        source = random_filter(rng)
        where = parse_filter(source)
        expected = {r.chunk_id for r in rows if matches(where, r.metadata)}
        hits = await index.search("col", IndexQuery(k=40, vector=unit(1), text="river", filter=where))
        assert ids(hits) == expected, source
        sizes.add(len(expected))
    assert len(sizes) > 10  # not all or nothing


async def test_a_filter_comes_before_the_ranking(index: IndexStore) -> None:
    await filled(index, [row(i, text="river " * (50 - i), n=i) for i in range(40)])
    hits = await index.search(
        "col", IndexQuery(k=1, vector=unit(0), text="river", filter=parse_filter({"n": {"gte": 39}}))
    )
    assert ids(hits) == {"chk_39"}


@pytest.mark.parametrize("source", [None, {"city": "Graz"}, {"city": {"gt": "Graz"}, "n": {"lt": 150}}])
async def test_engines_agree(index: IndexStore, source: JSON) -> None:
    rows = [row(i, city=["Graz", "Linz"][i % 2], n=i) for i in range(200)]
    where = parse_filter(source)
    async with MemoryIndex() as reference:
        for one in (index, reference):
            await filled(one, rows)
            await one.optimise("col")
        for seed in range(5000, 5010):
            query = IndexQuery(k=7, vector=unit(seed), filter=where)
            ours, theirs = await index.search("col", query), await reference.search("col", query)
            assert {c.chunk_id: c.dense for c in ours.candidates} == pytest.approx(
                {c.chunk_id: c.dense for c in theirs.candidates}, abs=1e-5
            )
            query = IndexQuery(k=200, text=row(seed).text, filter=where)
            ours, theirs = await index.search("col", query), await reference.search("col", query)
            expected = {c.chunk_id: c.fulltext or 0.0 for c in theirs.candidates}
            agree({c.chunk_id: c.fulltext for c in ours.candidates}, expected, exact=index.exact_bm25)


async def test_a_filter_that_leaves_few_looks_deeper(index: IndexStore) -> None:
    await filled(index, [row(i, text="river", name=f"{i:03}") for i in range(120)])
    where = parse_filter({"name": {"gte": "115"}})
    assert ids(await index.search("col", IndexQuery(k=5, vector=unit(3), text="river", filter=where))) == {
        f"chk_{i}" for i in range(115, 120)
    }


@pytest.mark.parametrize("source", [{"city": "Graz"}, {"name": {"lt": "b"}}, {"city": {"exists": False}}])
async def test_delete_by_filter(index: IndexStore, source: JSON) -> None:
    rows = [replace(row(i), metadata={"name": "abc"[i % 3]} | ({"city": "Graz"} if i % 3 else {})) for i in range(30)]
    await filled(index, rows)
    where = parse_filter(source)
    await index.delete("col", where=where)
    kept = {r.chunk_id for r in rows if not matches(where, r.metadata)}
    assert await index.count("col") == len(kept)
    assert ids(await index.search("col", IndexQuery(k=30, vector=unit(1), text=" ".join(WORDS)))) == kept


async def test_approximate_search_finds_nearly_all(index: IndexStore) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(50, 32))
    vectors = (centres[rng.integers(50, size=5_200)] + 0.7 * rng.normal(size=(5_200, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    await index.create("col", 32)
    for start in range(0, 5_200, 520):
        part = range(start, start + 520)
        await index.upsert("col", [replace(row(i, text="river", even=i % 2 == 0), vector=vectors[i]) for i in part])
    await index.optimise("col")
    found = filtered = 0
    for asked in range(0, 5_200, 260):
        order = np.argsort(-(vectors @ vectors[asked])).tolist()
        hits = await index.search("col", IndexQuery(k=10, vector=vectors[asked]))
        found += len(ids(hits) & {f"chk_{i}" for i in order[:10]})
        hits = await index.search("col", IndexQuery(k=10, vector=vectors[asked], filter=parse_filter({"even": True})))
        filtered += len(ids(hits) & {f"chk_{i}" for i in [i for i in order if i % 2 == 0][:10]})
    enough = 200 if index.exact else 0.95 * 200
    assert found >= enough
    assert filtered >= enough
