"""Cuts a parsed document into passages that fit the embedding model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from semantic_text_splitter import MarkdownSplitter, TextSplitter
from tokenizers import Tokenizer

from penstock.errors import InvalidInput
from penstock.pipeline import media
from penstock.pipeline.chunking import CHUNKER_NAMES
from penstock.pipeline.chunking.outline import Outline
from penstock.pipeline.parsing.records import ChunkingRequest, ParsedDocument, Piece
from penstock.pipeline.sentences import split_sentences

Range = tuple[int, int]
CHARS_PER_TOKEN = 20
"""No passage is longer than this many characters for each token it may have. A word of a thousand letters is one
unknown token to the model: by tokens alone, a megabyte of encoded data would be a single passage."""


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
        self._text = TextSplitter.from_huggingface_tokenizer(tokenizer, tokens, overlap)
        self._markdown = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, tokens, overlap)
        self._text_apart = TextSplitter.from_huggingface_tokenizer(tokenizer, tokens)
        self._by_chars = TextSplitter(self._max_chars)
        self._strategies: Mapping[str, Callable[[ParsedDocument, Outline], Iterable[Range]]] = {
            "recursive": self._recursive,
            "heading": self._heading,
            "page": self._page,
            "tokens": self._windows,
            "sentence": self._sentences,
        }

    def chunk(self, document: ParsedDocument, chunker: str) -> tuple[Piece, ...]:
        """The passages in reading order. Raises `InvalidInput` for an unknown chunker."""
        if chunker not in self._strategies:
            raise InvalidInput(f"There is no chunker {chunker!r}. Choose one of {', '.join(CHUNKER_NAMES)}.")
        if not document.text.strip():
            return ()
        outline = Outline(document)
        ranges = list(self._bounded(document.text, self._strategies[chunker](document, outline)))
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

    # --- tools --------------------------------------------------------------------------------------------------------

    def _split(self, text: str, start: int, end: int, splitter: TextSplitter | MarkdownSplitter) -> Iterator[Range]:
        """The range itself when it fits, else what the splitter makes of it."""
        stretch = text[start:end].strip()
        if not stretch:
            return
        if self._fits(stretch):
            yield start, end
            return
        for offset, piece in splitter.chunk_indices(text[start:end]):
            yield start + offset, start + offset + len(piece)

    def _fits(self, text: str) -> bool:
        return len(text) <= self._max_chars and len(self._encode(text)) <= self._tokens

    def _encode(self, text: str) -> Sequence[int]:
        ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _counts(self, texts: list[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _bounded(self, text: str, ranges: Iterable[Range]) -> Iterator[Range]:
        """Ranges without blank edges, without blank ones, and none beyond `CHARS_PER_TOKEN`."""
        for start, end in map(partial(_stripped, text), ranges):
            if end - start <= self._max_chars:
                if start < end:
                    yield start, end
            else:
                for offset, piece in self._by_chars.chunk_indices(text[start:end]):
                    yield start + offset, start + offset + len(piece)


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
            self._chunkers[key] = Chunker(_read_tokenizer(request.tokenizer_file), request.tokens, request.overlap)
        return self._chunkers[key]


def _read_tokenizer(file: str) -> Tokenizer:
    """Counting must see the whole text: what the file says of truncation and padding is for the model's input."""
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as exc:  # the library raises nothing narrower
        raise InvalidInput(f"The tokenizer file {file} cannot be read: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _stripped(text: str, span: Range) -> Range:
    start, end = span
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


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
