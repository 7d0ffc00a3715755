"""What a vision model says of the pictures in documents, over real HTTP; and those that it is shown with a question."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.errors import ProviderError
from penstock.models.generator_options import GeneratorOptions
from penstock.models.openai_generator import OpenAIGenerator
from penstock.models.vision import VisionOptions
from penstock.pipeline import media
from penstock.pipeline.answer import Answerer
from penstock.pipeline.captions import BEYOND_NOTE, FAILED_NOTE, NOBODY_NOTE
from penstock.pipeline.pictures import ImageOptions, Pictures
from penstock.pipeline.retrieve import Retriever
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.clip_house import open_clip_house, pdf, png
from penstock.testing.house import House
from penstock.testing.provider import FakeProvider
from penstock.types import Chunk, CollectionOptions, Document

CLIP = Path(__file__).parents[1] / "models" / "golden" / "clip"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def house(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, provider: FakeProvider
) -> AsyncIterator[House]:
    compiled = tmp_path_factory.getbasetemp() / "models"
    options = VisionOptions(base_url=provider.url, model="fake-vl", backoff_s=0.01, max_retries=0)
    async with (
        OpenAIGenerator(options) as model,
        open_clip_house(tmp_path, clip=CLIP, compiled=compiled) as opened,
    ):
        opened.vision = model
        await opened.ledger.create_collection("default", "told", CollectionOptions(captions=True))
        await opened.ledger.create_collection("default", "both", CollectionOptions(captions=True, image_model="clip"))
        yield opened


def docx_file(shared_data: Path) -> bytes:
    """Two pictures worth a look."""
    return (shared_data / "docs" / "good" / "contains-pictures.docx").read_bytes()


async def chunks_of(house: House, collection: str) -> list[Chunk]:
    [document] = (await house.ledger.list_documents("default", collection)).documents
    return list(await house.ledger.list_chunks("default", document.id))


async def document_of(house: House, collection: str) -> Document:
    [document] = (await house.ledger.list_documents("default", collection)).documents
    return document


async def test_captions_are_chunks_that_words_find(house: House, provider: FakeProvider, shared_data: Path) -> None:
    await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    told = [chunk for chunk in await chunks_of(house, "told") if chunk.kind != "text"]
    assert [(chunk.kind, chunk.picture, chunk.start, chunk.end) for chunk in told] == [
        ("caption", 1, 0, 0),
        ("caption", 2, 0, 0),
    ]
    assert all(chunk.text.startswith("An image of type image/png") and chunk.tokens for chunk in told)
    assert provider.stats.requests == 2
    collection = await house.ledger.get_collection("default", "told")
    found = await Retriever(house.ledger, house.index, house.models).retrieve(
        collection, "image of type", limit=3, mode="fulltext"
    )
    assert {hit.chunk.kind for hit in found.hits} == {"caption"}


async def test_a_caption_is_asked_for_once(house: House, provider: FakeProvider, shared_data: Path) -> None:
    await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    await house.cache.__aexit__(None, None, None)  # what was kept is written
    await house.ingest("a.docx", docx_file(shared_data), "both", media.DOCX)
    assert provider.stats.requests == 2
    kinds = [chunk.kind for chunk in await chunks_of(house, "both") if chunk.kind != "text"]
    assert kinds == ["caption", "picture", "caption", "picture"]


async def test_a_scan_that_the_model_has_read_is_not_described_once_more(house: House, provider: FakeProvider) -> None:
    await house.ingest("a.pdf", pdf("navy", "gold"), "told", media.PDF)
    await house.ingest("b.png", png("navy"), "told", media.PNG)
    assert provider.stats.requests == 3


async def test_a_picture_without_caption_is_noted_and_tried_again(
    house: House, provider: FakeProvider, shared_data: Path
) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=500))
    result = await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    assert result.notes[0].startswith(FAILED_NOTE.partition(" of")[0].format(2))
    assert (await document_of(house, "told")).notes == tuple(result.notes)
    provider.script.stand(Behaviour())
    await house.cache.__aexit__(None, None, None)
    result = await house.ingest("b.docx", docx_file(shared_data), "both", media.DOCX)
    assert not result.notes


async def test_how_many_are_described_is_bounded(house: House, provider: FakeProvider, shared_data: Path) -> None:
    house.looking = ImageOptions(captions_per_document=1)
    result = await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    assert tuple(result.notes) == (BEYOND_NOTE.format(1),)
    assert provider.stats.requests == 1


async def test_small_pictures_are_passed_over(house: House, provider: FakeProvider, shared_data: Path) -> None:
    house.looking = ImageOptions(min_side=2000)
    await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    assert provider.stats.requests == 0


async def test_without_a_model_it_is_said_that_nobody_described_them(house: House, shared_data: Path) -> None:
    house.vision = None
    result = await house.ingest("a.docx", docx_file(shared_data), "told", media.DOCX)
    assert tuple(result.notes) == (NOBODY_NOTE,)


async def test_the_best_pictures_go_to_the_vision_model_and_are_cited(house: House, provider: FakeProvider) -> None:
    reader, house.vision = house.vision, None
    for colour in ("navy", "gold", "crimson"):
        await house.ingest(f"{colour}.png", png(colour), "pictures", media.PNG)
    collection = await house.ledger.get_collection("default", "pictures")
    found = await Retriever(house.ledger, house.index, house.models).retrieve(
        collection, "", limit=3, image=png("gold")
    )
    drawers = house.parsers
    shown = await Pictures(house.blobs, drawers, reader).of_hits(found.hits, house.ledger)
    assert list(shown) == [hit.chunk.id for hit in found.hits[:2]], "two at most"
    answer = await Answerer(reader=reader).answer("What is golden?", found.hits, shown=shown)
    [seen] = provider.seen
    *images, text = seen["messages"][-1]["content"]
    assert len(images) == 2
    assert '<passage n="1" source="gold.png" image="1">' in text["text"]
    assert 'image="3"' not in text["text"]
    assert "n-th of the images" in seen["messages"][0]["content"]
    assert (answer.citations[0].kind, answer.citations[0].document_name) == ("picture", "gold.png")
    assert not await Pictures(house.blobs, drawers, None).of_hits(found.hits, house.ledger), "nobody would look"
    assert not await Pictures(house.blobs, drawers, reader, ImageOptions(shown=0)).of_hits(found.hits, house.ledger)


async def test_without_a_model_pictures_alone_are_an_answer_when_they_fit(house: House) -> None:
    house.vision = None
    await house.ingest("gold.png", png("gold"), "pictures", media.PNG)
    collection = await house.ledger.get_collection("default", "pictures")
    found = await Retriever(house.ledger, house.index, house.models).retrieve(
        collection, "", limit=3, image=png("gold")
    )
    answer = await Answerer().answer("金色的是什么？", found.hits)
    assert answer.text == "文档中与问题最相符的图片：gold.png [1]。"
    assert [(one.kind, one.start, one.end) for one in answer.citations] == [("picture", 0, 0)]
    unlike = [replace(hit, score=0.1) for hit in found.hits]
    assert not (await Answerer().answer("What is golden?", unlike)).found


async def test_a_vision_model_that_fails_leaves_the_answer_to_the_other_one(
    house: House, provider: FakeProvider
) -> None:
    reader, house.vision = house.vision, None
    await house.ingest("gold.png", png("gold"), "pictures", media.PNG)
    collection = await house.ledger.get_collection("default", "pictures")
    found = await Retriever(house.ledger, house.index, house.models).retrieve(
        collection, "", limit=3, image=png("gold")
    )
    shown = await Pictures(house.blobs, house.parsers, reader).of_hits(found.hits, house.ledger)
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=500))
    with pytest.raises(ProviderError):
        await Answerer(reader=reader).answer("What is golden?", found.hits, shown=shown)
    async with FakeProvider() as other:
        options = GeneratorOptions(base_url=other.url, model="fake-text")
        async with OpenAIGenerator(options) as generator:
            answer = await Answerer(generator, reader=reader).answer("What is golden?", found.hits, shown=shown)
        assert answer.citations[0].kind == "picture"
        assert isinstance(other.seen[0]["messages"][-1]["content"], str), "it was given words alone"
