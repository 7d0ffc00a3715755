"""Pages that are pictures: of a PDF, or an image file as a whole; read by tesseract, or told from elsewhere."""

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO

import kreuzberg
from PIL import Image, ImageOps

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing.builder import BLOCK_GAP
from penstock.pipeline.parsing.limits import allow_file
from penstock.pipeline.parsing.ocr import Recognizer, is_blank
from penstock.pipeline.parsing.pictures import BROKEN, FORMATS
from penstock.pipeline.parsing.records import HeadingSpan, OcrLimits, PageSpan, ParsedDocument

LATE_NOTE = "There was no time to read {} of the pages that are pictures (see time_limit_s of the parsing settings)."
PICTURE_DPI = 150
"""For a model that looks at pages: small print can be read, and a page has about two megapixels."""
_DPI = 200
_PEEK_DPI = 36


@dataclass(slots=True)
class _Scanned:
    """Text by page number. `unread` pages show something that nobody could read; `late` ones nobody had time for."""

    texts: dict[int, str] = field(default_factory=dict)
    unread: list[int] = field(default_factory=list)
    late: int = 0


class Scans:
    """Reads the pictures of one document. `transcripts` are texts of its pages that are known already."""

    def __init__(self, limits: OcrLimits, transcripts: Mapping[int, str]) -> None:
        self._limits = limits
        self._transcripts = transcripts
        self._recognizer = Recognizer(limits.languages, limits.time_s)

    def complete(self, document: ParsedDocument, data: bytes) -> ParsedDocument:
        """The document with what its pictures say: an image, or the pages of a PDF without any text.

        What still could not be read is in `unread`. Raises `ParseError`.
        """
        if document.media_type in media.IMAGES:
            scanned = self._read(_frames(data, self._limits))
            document = replace(document, page_count=len(scanned.texts) + len(scanned.unread))
        elif document.media_type == media.PDF and (silent := _silent_pages(document)):
            with pdf_file(data) as path:
                scanned = self._read(self._rendered(path, silent))
        else:
            return document
        notes = () if scanned.texts else document.notes
        if scanned.late:
            notes = (*notes, LATE_NOTE.format(scanned.late))
        return replace(spliced(document, scanned.texts), notes=notes, unread=tuple(scanned.unread))

    def _rendered(self, path: str, pages: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """Small ones first: only a page that is not blank, and is going to be read, is worth a large one."""
        for number in pages[: self._limits.max_pages]:
            peek = rendered(path, number, _PEEK_DPI)
            read = number not in self._transcripts and self._recognizer.ready and not is_blank(peek)
            yield number, rendered(path, number, _DPI) if read else peek

    def _read(self, pages: Iterator[tuple[int, Image.Image]]) -> _Scanned:
        scanned = _Scanned()
        for number, image in pages:
            if number not in self._transcripts and is_blank(image):
                continue
            scanned.late += self._recognizer.late and number not in self._transcripts
            if text := self._transcripts.get(number) or self._recognizer.read(image):
                scanned.texts[number] = text
            else:
                scanned.unread.append(number)
        return scanned


def spliced(document: ParsedDocument, texts: Mapping[int, str]) -> ParsedDocument:
    """The document with the texts of more pages in their places; what comes after them moves on."""
    if not texts:
        return document
    own = {page.number: page for page in document.pages}
    text = ""
    pages: list[PageSpan] = []
    headings: list[HeadingSpan] = []
    for number in sorted({*texts, *own}):
        gap = BLOCK_GAP if text else ""
        start = len(text) + len(gap)
        if number in own:
            page = own[number]
            headings += _moved(document, page, start - page.start)
            text += gap + document.text[page.start : page.end].rstrip("\n")
        else:
            text += gap + texts[number]
        pages.append(PageSpan(number=number, start=start, end=len(text)))
    return replace(document, text=text, pages=tuple(pages), headings=tuple(headings))


def _moved(document: ParsedDocument, page: PageSpan, by: int) -> list[HeadingSpan]:
    """The page's headings where they come to stand."""
    inside = [heading for heading in document.headings if page.start <= heading.start < page.end]
    return [replace(heading, start=heading.start + by, end=heading.end + by) for heading in inside]


def _silent_pages(document: ParsedDocument) -> list[int]:
    heard = {page.number for page in document.pages}
    return [number for number in range(1, document.page_count + 1) if number not in heard]


@contextlib.contextmanager
def pdf_file(data: bytes) -> Iterator[str]:
    """A path to the bytes: the renderer takes nothing else."""
    with _nameless_file() as file:
        with allow_file(len(data)):
            file.write(data)
            file.flush()
        yield f"/dev/fd/{file.fileno()}"


def _nameless_file() -> IO[bytes]:
    """In memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("document"), "wb")
    return tempfile.TemporaryFile()


def rendered(path: str, page: int, dpi: int) -> Image.Image:
    """A page (from 1) of a PDF as it looks."""
    try:
        png = kreuzberg.render_pdf_page(path, page - 1, dpi=dpi)
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError, OSError) as exc:
        raise ParseError(f"Page {page} of the PDF cannot be drawn: {' '.join(str(exc).split())[:200]}") from exc
    return Image.open(io.BytesIO(png))


def _frames(data: bytes, limits: OcrLimits) -> Iterator[tuple[int, Image.Image]]:
    """All pages of a TIFF, the first picture of what moves."""
    Image.MAX_IMAGE_PIXELS = None  # ours is checked before anything is decoded
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            for number in range(1, limits.max_pages + 1 if image.format == "TIFF" else 2):
                if number > 1:
                    image.seek(number - 1)
                _check_pixels(image, limits.max_pixels)
                yield number, ImageOps.exif_transpose(image)
    except EOFError:
        return  # that was the last page
    except BROKEN as exc:
        raise ParseError(f"The image is damaged: {' '.join(str(exc).split())[:200]}.") from exc


def _check_pixels(image: Image.Image, most: int) -> None:
    width, height = image.size
    if width * height > most:
        raise ParseError(
            f"The image has {width:,} x {height:,} pixels; at most {most:,} are read.", code="image_too_large"
        )
