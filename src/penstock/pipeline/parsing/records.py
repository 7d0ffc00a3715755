"""What parsing and chunking take and give. Offsets are in characters of `ParsedDocument.text`; an end is exclusive."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSpan:
    """Where a page (or a slide) lies in the text. `number` counts from 1."""

    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadingSpan:
    """Where a heading stands in the text. `level` is 1 for the highest."""

    level: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDocument:
    """A document as plain text: NFC, `\\n` line ends, no control characters, no surrogates.

    `pages` (those that hold text) and `headings` are in the order of the text; either may be empty. `page_count` counts
    blank pages too. `media_type` is what the bytes were found to be. `notes` say what a person should know about how
    much of the document was read.
    """

    text: str
    media_type: str
    title: str | None = None
    pages: tuple[PageSpan, ...] = ()
    headings: tuple[HeadingSpan, ...] = ()
    page_count: int = 0
    notes: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrLimits:
    """How the pictures in a document are read: `time_s` in all, at most `max_pages` pages of at most `max_pixels`."""

    languages: tuple[str, ...]
    time_s: float
    max_pages: int
    max_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """What a picture may be: `max_pixels` as it comes; `max_side` pixels and `max_bytes` as it goes to a model."""

    max_pixels: int
    max_side: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPicture:
    """A still JPEG or PNG without metadata."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSearch:
    """Which pictures of a document are wanted: the first `most` of those that have no side below `min_side` pixels, or
    the one that has the `number`; and within which `limits`."""

    limits: PictureLimits
    min_side: int
    most: int
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPicture:
    """A picture of a document, or the document itself where that is an image (a page of a TIFF).

    `number` counts from 1 and follows from the document's bytes; `sha256` is of the picture's own, as they stand in it.
    """

    number: int
    page: int | None
    sha256: str
    picture: PlainPicture


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSpot:
    """Where a document has a picture, and what a model says that it shows (empty: nobody was asked, or could tell)."""

    number: int
    page: int | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkingRequest:
    """How to cut: `chunker` by name, at most `tokens` a piece, `overlap` tokens shared with the piece before.

    Tokens are those of the tokenizer in `tokenizer_file` (a `tokenizer.json`), special tokens not counted.
    """

    chunker: str
    tokens: int
    overlap: int
    tokenizer_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One passage: `text == document.text[start:end]`, never blank. `headings` is the path from the highest down."""

    text: str
    start: int
    end: int
    tokens: int
    page: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked:
    """A document's pieces in reading order, and what its version should remember of it.

    `unread` are the pages (or 1, of an image) that show something which nobody has read. `pictures`: those in it, where
    they were looked for. Not `complete`: something failed that may work another time.
    """

    pieces: tuple[Piece, ...]
    pages: int
    media_type: str
    title: str | None = None
    notes: tuple[str, ...] = ()
    unread: tuple[int, ...] = ()
    pictures: tuple[PictureSpot, ...] = ()
    complete: bool = True
