"""Cuts a parsed document into passages that fit the embedding model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from penstock.errors import InvalidInput, ParseError
from penstock.pipeline import media
from penstock.pipeline.chunking import find_chunker
from penstock.pipeline.chunking.custom import CustomChunker
from penstock.pipeline.chunking.outline import Outline
from penstock.pipeline.chunking.whole import (
    CHARS_PER_TOKEN,
    WHOLE_IF_IT_FITS,
    count_tokens,
    read_tokenizer,
    stripped,
    whole_piece,
)
from penstock.pipeline.parsing.records import ChunkingRequest, ParsedDocument, Piece
from penstock.pipeline.sentences import split_sentences

Range = tuple[int, int]
STRETCH_CHARS = 8_000
"""What the splitter is given at a time. Its time grows with the square of a text without sentence ends."""
_STRETCH_ENDS = ("\n\n\n", "\n\n", "\n", "。", ". ", " ")


class Chunker:
    """One tokenizer, one size. Build it once: reading the tokenizer takes some 20 ms."""

    def __init__(self, tokenizer: Tokenizer, tokens: int, overlap: int) -> None:
        """Raises `InvalidInput` when the sizes make no sense."""
        if tokens < 1 or not 0 <= overlap < tokens:
            raise InvalidInput(f"Passages of {tokens} tokens cannot share {overlap}: the overlap must be smaller.")
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._overlap = overlap
        self._max_chars = tokens * CHARS_PER_TOKEN
        self._customs: dict[str, CustomChunker] = {}
        self._strategies: Mapping[str, Callable[[ParsedDocument, Outline], Iterable[Range]]] = {
            "recursive": self._recursive,
            "heading": self._heading,
            "page": self._page,
            "tokens": self._windows,
            "sentence": self._sentences,
        }

    def chunk(self, document: ParsedDocument, chunker: str) -> tuple[Piece, ...]:
        """The passages in reading order. Raises `InvalidInput` for an unknown chunker."""
        strategy = self._strategies.get(chunker) or self._custom(chunker)
        if not document.text.strip():
            return ()
        outline = Outline(document)
        if not document.pages and chunker in WHOLE_IF_IT_FITS and (piece := self._whole(document, outline)):
            return (piece,)
        ranges = list(self._bounded(document.text, strategy(document, outline)))
        texts = [document.text[start:end] for start, end in ranges]
        return tuple(
            Piece(
                text=text,
                start=start,
                end=end,
                tokens=count,
                page=outline.page(start),
                headings=outline.path(start, end),
            )
            for (start, end), text, count in zip(ranges, texts, self._counts(texts), strict=True)
        )

    def _whole(self, document: ParsedDocument, outline: Outline) -> Piece | None:
        """The text as one passage if it fits: the short way for a corpus of passages."""
        piece = whole_piece(document.text, self._tokenizer, self._tokens)
        return replace(piece, headings=outline.path(piece.start, piece.end)) if piece else None

    # --- strategies: each gives ranges of the text, blank edges allowed -----------------------------------------------

    def _recursive(self, document: ParsedDocument, outline: Outline) -> Iterator[Range]:
        splitter = self._markdown if document.media_type == media.MARKDOWN else self._text
        for start, end in outline.page_ranges():
            yield from self._split(document.text, start, end, splitter)

    def _page(self, document: ParsedDocument, outline: Outline) -> Iterator[Range]:
        for start, end in outline.page_ranges():
            yield from self._split(document.text, start, end, self._text_apart)

    def _heading(self, document: ParsedDocument, outline: Outline) -> Iterator[Range]:
        """A heading with nothing below it goes with the section that follows."""
        page_starts = {start for start, _ in outline.page_ranges()}
        start = 0
        for section in outline.sections:
            if document.text[section.body : section.end].strip():
                bounds = sorted({start, section.end, *(p for p in page_starts if start < p < section.end)})
                for piece in pairwise(bounds):
                    yield from self._split(document.text, *piece, self._text)
                start = section.end
        yield from self._split(document.text, start, len(document.text), self._text)

    def _windows(self, document: ParsedDocument, outline: Outline) -> Iterator[Range]:
        """A window that cuts through a word may count one token more on its own, and is split then."""
        for page_start, page_end in outline.page_ranges():
            encoding = self._tokenizer.encode(document.text[page_start:page_end], add_special_tokens=False)
            offsets = encoding.offsets
            for first in range(0, max(1, len(offsets) - self._overlap), self._tokens - self._overlap):
                if window := offsets[first : first + self._tokens]:
                    start, end = page_start + window[0][0], page_start + window[-1][1]
                    yield from self._split(document.text, start, end, self._text_apart)

    def _sentences(self, document: ParsedDocument, outline: Outline) -> Iterator[Range]:
        for page_start, page_end in outline.page_ranges():
            sentences = split_sentences(document.text[page_start:page_end])
            counts = self._counts([sentence.text for sentence in sentences])
            for first, last in _windows_of(counts, self._tokens, self._overlap):
                start, end = page_start + sentences[first].start, page_start + sentences[last].end
                yield from self._split(document.text, start, end, self._text)

    def _custom(self, name: str) -> Callable[[ParsedDocument, Outline], Iterable[Range]]:
        """Where a chunker of somebody else's cuts. Raises `InvalidInput` for a name that nobody has installed."""
        if name not in self._customs:
            made: CustomChunker = find_chunker(name).load()(self._tokens, self._overlap, self._count)
            self._customs[name] = made
        return partial(self._cut_by, self._customs[name])

    def _cut_by(self, custom: CustomChunker, document: ParsedDocument, outline: Outline) -> Iterator[Range]:  # noqa: ARG002
        length = len(document.text)
        for start, end in custom.cut(document):
            if not 0 <= start <= end <= length:
                raise ParseError(f"The chunker gave the range {start} to {end} of a text of {length} characters.")
            yield from self._split(document.text, start, end, self._text_apart)

    # --- splitters: each copies the tokenizer (some 10 MB), so only those in use are built ---------------------------

    @cached_property
    def _text(self) -> TextSplitter:
        return TextSplitter.from_huggingface_tokenizer(self._tokenizer, self._tokens, self._overlap)

    @cached_property
    def _text_apart(self) -> TextSplitter:
        return TextSplitter.from_huggingface_tokenizer(self._tokenizer, self._tokens)

    @cached_property
    def _markdown(self) -> MarkdownSplitter:
        return MarkdownSplitter.from_huggingface_tokenizer(self._tokenizer, self._tokens, self._overlap)

    # --- tools --------------------------------------------------------------------------------------------------------

    def _split(self, text: str, start: int, end: int, splitter: TextSplitter | MarkdownSplitter) -> Iterator[Range]:
        """The range itself when it fits, else what the splitter makes of it."""
        stretch = text[start:end].strip()
        if not stretch:
            return
        if self._fits(stretch):
            yield start, end
            return
        for stretch_start, stretch_end in _stretches(text, start, end):
            for offset, piece in splitter.chunk_indices(text[stretch_start:stretch_end]):
                yield stretch_start + offset, stretch_start + offset + len(piece)

    def _fits(self, text: str) -> bool:
        return len(text) <= self._max_chars and self._count(text) <= self._tokens

    def _count(self, text: str) -> int:
        return count_tokens(self._tokenizer, text)

    def _counts(self, texts: list[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _bounded(self, text: str, ranges: Iterable[Range]) -> Iterator[Range]:
        """Ranges without blank edges, without blank ones, and none beyond `CHARS_PER_TOKEN`."""
        for start, end in map(partial(stripped, text), ranges):
            if end - start <= self._max_chars:
                if start < end:
                    yield start, end
            else:
                for first in range(start, end, self._max_chars):
                    yield stripped(text, (first, min(first + self._max_chars, end)))


class ChunkerCache:
    """The chunkers of the sizes in use; a handful, since a size belongs to a collection."""

    def __init__(self, max_chunkers: int = 8) -> None:
        self._max_chunkers = max_chunkers
        self._chunkers: dict[tuple[str, int, int], Chunker] = {}

    def get(self, request: ChunkingRequest) -> Chunker:
        """Raises `InvalidInput` for a tokenizer file that cannot be read."""
        key = (request.tokenizer_file, request.tokens, request.overlap)
        if key not in self._chunkers:
            if len(self._chunkers) >= self._max_chunkers:
                del self._chunkers[next(iter(self._chunkers))]
            self._chunkers[key] = Chunker(read_tokenizer(request.tokenizer_file), request.tokens, request.overlap)
        return self._chunkers[key]


def _stretches(text: str, start: int, end: int) -> Iterator[Range]:
    """The range in parts of `STRETCH_CHARS` at most, cut at the end of a section, paragraph, line, sentence or word."""
    while end - start > STRETCH_CHARS:
        half, reach = start + STRETCH_CHARS // 2, start + STRETCH_CHARS
        found = (text.rfind(mark, half, reach) + len(mark) for mark in _STRETCH_ENDS)
        cut = next((cut for cut in found if cut > half), reach)
        yield start, cut
        start = cut
    yield start, end


def _windows_of(counts: Sequence[int], limit: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First and last index of runs whose counts sum up to `limit` at most, the next run taking back up to `overlap`."""
    first, total = 0, 0
    for index, count in enumerate(counts):
        if index > first and total + count > limit:
            yield first, index - 1
            first, total = _take_back(counts, first, index, min(overlap, limit - count))
        total += count
    if counts:
        yield first, len(counts) - 1


def _take_back(counts: Sequence[int], first: int, index: int, budget: int) -> tuple[int, int]:
    total, start = 0, index
    while start - 1 > first and total + counts[start - 1] <= budget:
        start -= 1
        total += counts[start]
    return start, total
