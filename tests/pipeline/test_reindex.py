"""A collection moves to another place in the index: nothing is lost of it, whatever arrives, goes or dies meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from penstock.errors import ConfigError, DataError
from penstock.ledger.base import Generation
from penstock.models.base import Lane, ModelInfo, Role, Vectors
from penstock.models.pool import ModelPool
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.intake import Intake, IntakeOptions
from penstock.pipeline.reindex import Reindexer
from penstock.pipeline.reindexing import start_reindex
from penstock.pipeline.upkeep import Upkeep, UpkeepOptions
from penstock.stores import IndexQuery, open_index
from penstock.stores.routed import RoutedIndex
from penstock.testing.house import CountingEmbedder, House, OneModel, open_house, report, vector_of
from penstock.types import JobState

TEXTS = {f"{n}.txt": f"Water number {n} is wet." for n in range(40)}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        for name, text in TEXTS.items():
            await opened.ingest(name, text.encode())
        yield opened


def reindexer(house: House) -> Reindexer:
    pool = cast(ModelPool, OneModel(house.embedder))
    return Reindexer(house.ledger, house.index, house.writer, pool, house.cache, house.pictures)


def upkeep(house: House) -> Upkeep:
    return Upkeep(
        worker_id="wrk",
        ledger=house.ledger,
        jobs=house.jobs,
        index=house.index,
        blobs=house.blobs,
        options=UpkeepOptions(retired_s=0),
        intake=IntakeOptions(),
    )


async def begun(house: House, **options: str) -> str:
    """The new place's id."""
    job = await start_reindex(house.ledger, house.jobs, "default", "default", **options)
    generation_id = job.payload["generation_id"]
    assert isinstance(generation_id, str)
    return generation_id


async def found(house: House, text: str) -> set[str]:
    """Texts that a search brings, where the ledger says that the collection is searched."""
    collection = await house.ledger.get_collection("default", "default")
    hits = await house.index.search(collection.index_id, IndexQuery(k=1000, vector=vector_of(text)))
    chunks = await house.ledger.get_chunks(collection.id, [hit.chunk_id for hit in hits.candidates])
    return {one.chunk.text for one in chunks.values()}


async def test_all_of_it_is_found_in_the_new_place_and_the_old_one_goes(house: House) -> None:
    old = (await house.ledger.get_collection("default", "default")).index_id
    new = await begun(house)
    assert await found(house, "x") == set(TEXTS.values())
    result = await reindexer(house).reindex(new, 40, report)
    assert (result.chunks, result.switched) == (40, True)
    assert (await house.ledger.get_collection("default", "default")).index_id == new
    assert await found(house, "x") == set(TEXTS.values())
    assert await house.index.count(new) == 40
    await upkeep(house).purge()
    assert await house.index.count(old) == 0
    assert (await reindexer(house).reindex(new, 40, report)).switched, "a second attempt changes nothing"
    await house.ingest("more.txt", b"More water.")
    assert "More water." in await found(house, "x")


async def test_what_arrives_changes_and_goes_meanwhile_is_as_it_should_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.pipeline.reindex.WINDOW_CHUNKS", 7)
    new = await begun(house)
    documents = {d.name: d for d in (await house.ledger.list_documents("default", limit=100)).documents}
    intake, step = Intake(house.ledger, house.jobs), iter(range(1000))

    async def life(stage: str, done: int, total: int) -> None:
        n = next(step)
        await intake.delete("default", documents[f"{n}.txt"].id)
        await house.ingest(f"{20 + n}.txt", f"Changed {n}.".encode())
        await house.ingest(f"new {n}.txt", f"New {n}.".encode())
        await upkeep(house).purge()

    result = await reindexer(house).reindex(new, 40, life)
    steps = next(step)
    assert steps > 4
    assert result.switched
    gone = {TEXTS[f"{n}.txt"] for n in range(steps)} | {TEXTS[f"{20 + n}.txt"] for n in range(steps)}
    fresh = {f"Changed {n}." for n in range(steps)} | {f"New {n}." for n in range(steps)}
    expected = (set(TEXTS.values()) - gone) | fresh
    assert await found(house, "x") == expected
    await upkeep(house).purge()
    assert await house.index.count(new) == len(expected), "no row is left of what is gone"


async def test_an_ingest_that_began_before_and_ends_after_is_not_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = await house.upload("late.txt", b"Late water.")
    finish = house.ledger.finish_version
    switched = False

    async def late(*args: object, **kwargs: object) -> bool:
        nonlocal switched
        if not switched:
            switched = True
            assert (await reindexer(house).reindex(await begun(house), 40, report)).switched
        return await finish(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(house.ledger, "finish_version", late)
    assert (await house.ingestor.ingest(document.version_id, report)).live
    assert "Late water." in await found(house, "x")


@pytest.mark.case(1)
async def test_a_worker_that_dies_is_resumed_where_it_was(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipeline.reindex.WINDOW_CHUNKS", 7)
    new = await begun(house)
    embedded = 0
    for _ in range(10):
        seen = asyncio.Event()

        async def dying(stage: str, done: int, total: int, seen: asyncio.Event = seen) -> None:
            seen.set()

        before = len(house.embedder.texts)
        task = asyncio.create_task(reindexer(house).reindex(new, 40, dying))
        waiting = asyncio.create_task(seen.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        task.cancel()
        await asyncio.wait({task})
        embedded += len(house.embedder.texts) - before
        if not task.cancelled() and task.exception() is None:
            break
    assert (await house.ledger.get_collection("default", "default")).index_id == new
    assert await found(house, "x") == set(TEXTS.values())


@pytest.mark.case(10)
async def test_a_cancelled_reindex_leaves_everything_as_it_was(house: House) -> None:
    before = await house.ledger.get_collection("default", "default")
    job = await start_reindex(house.ledger, house.jobs, "default", "default", model="other")
    await Intake(house.ledger, house.jobs).cancel(job.id)
    assert not (await reindexer(house).reindex(job.payload["generation_id"], 40, report)).switched
    assert await house.ledger.get_collection("default", "default") == before
    await upkeep(house).purge()
    assert await house.index.count(job.payload["generation_id"]) == 0
    await start_reindex(house.ledger, house.jobs, "default", "default")


@pytest.mark.case(15)
async def test_a_lost_job_is_enqueued_again_and_a_dead_one_given_up(house: House) -> None:
    job = await start_reindex(house.ledger, house.jobs, "default", "default")
    generation = cast(Generation, await house.ledger.generations.building(job.payload["generation_id"]))
    await house.ledger.generations.abandon(generation.id)
    lost = await house.ledger.generations.start(
        "default", "default", "idx_lost", generation.options, "job_that_is_nowhere"
    )
    await upkeep(house).reconcile()
    assert (await house.jobs.get(lost.job_id)).state is JobState.QUEUED
    await house.jobs.cancel(lost.job_id)
    await upkeep(house).reconcile()
    assert await house.ledger.generations.building("idx_lost") is None


class Longer(CountingEmbedder):
    """Another model: sixteen dimensions instead of eight."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, dimensions=16)

    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        short = await super().embed(texts, role=role, lane=lane)
        twice: Vectors = (np.concatenate([short, short], axis=1) / np.sqrt(2)).astype(np.float32)
        return twice


async def test_another_model_of_other_dimensions_takes_over(house: House, tmp_path: Path) -> None:
    pool = cast(ModelPool, OneModel(Longer(tmp_path / "other", "longer")))
    new = await begun(house, model="longer")
    result = await Reindexer(house.ledger, house.index, house.writer, pool, house.cache, house.pictures).reindex(
        new, 40, report
    )
    assert result.switched
    assert (await house.ledger.get_collection("default", "default")).options.embedding_model == "longer"
    twice = (np.concatenate([vector_of("x")] * 2) / np.sqrt(2)).astype(np.float32)
    assert len((await house.index.search(new, IndexQuery(k=100, vector=twice))).candidates) == 40
    with pytest.raises(DataError):
        await house.index.search(new, IndexQuery(k=1, vector=vector_of("x")))


async def test_a_collection_moves_to_another_engine_and_back(house: House) -> None:
    other = open_index("memory://")
    async with RoutedIndex(house.index, {"other": other}) as routed, IndexWriter(routed) as writer:
        pool = cast(ModelPool, OneModel(house.embedder))
        moving = Reindexer(house.ledger, routed, writer, pool, house.cache, house.pictures)
        new = await begun(house, engine="other")
        assert new.startswith("other.idx_")
        assert (await moving.reindex(new, 40, report)).switched
        assert await other.count(new.partition(".")[2]) == 40
        assert await routed.count(new) == 40
        again = await begun(house)
        assert again.startswith("other."), "it stays where it is unless told otherwise"
        await house.ledger.generations.abandon(again)
        back = await begun(house, engine="")
        assert (await moving.reindex(back, 40, report)).switched
        assert await house.index.count(back) == 40
        with pytest.raises(ConfigError, match="INDEX_ENGINES__NOWHERE"):
            await routed.count("nowhere.idx_1")
