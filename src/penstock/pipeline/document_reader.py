"""Documents to passages, their pictures read too: by tesseract in the parser, else by a model that looks at them."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from penstock.errors import ParseError, ProviderError
from penstock.models.generator import Generator, Picture
from penstock.models.vision import read_picture
from penstock.pipeline import media
from penstock.pipeline.parsing import Chunked, ChunkingRequest, ParserPool
from penstock.pipeline.parsing.ocr import installed_languages
from penstock.pipeline.parsing.records import PictureLimits
from penstock.pipeline.prompts import load_prompt

UNREADABLE = (
    "The document is a picture, or all its pages are, and nothing here can read those. Install tesseract where the "
    "worker runs (Debian: tesseract-ocr tesseract-ocr-chi-sim), or configure a model that takes pictures "
    "(PENSTOCK_VISION__PRESET)."
)
CUT_NOTE = "What the model read on page {} was cut off at its token limit."
UNREAD_NOTE = "{} pages are pictures that were not read."

_WITH_PICTURES = media.IMAGES | {media.PDF}
_TRANSCRIPT_TOKENS = 4096
_PAGES_AT_ONCE = 4
_MAX_PAGES = 200
_TASK = "Write down what this image holds."


class DocumentReader:
    """A parser pool and, where there is one, a model (`reader`) that sees the pictures which the pool left unread."""

    def __init__(self, parsers: ParserPool, reader: Generator | None, limits: PictureLimits) -> None:
        self._parsers = parsers
        self._reader = reader
        self._limits = limits

    def identity(self, media_type: str) -> str:
        """What decides about a document's text beside its bytes."""
        identity = self._parsers.identity(media_type)
        if media_type not in _WITH_PICTURES:
            return identity
        seen_by = self._reader.model if self._reader else "nobody"
        return f"{identity} tesseract {'+'.join(sorted(installed_languages()))} seen by {seen_by}"

    async def parse_and_chunk(self, data: bytes, *, name: str, media_type: str, chunking: ChunkingRequest) -> Chunked:
        """The passages of a document. Raises what the pool raises, `ProviderError`, and `ParseError` (`needs_ocr`)."""
        chunked = await self._parsers.parse_and_chunk(data, name=name, media_type=media_type, chunking=chunking)
        if chunked.unread and self._reader:
            told, notes = await self._transcribe(self._reader, data, media_type, chunked)
            chunked = await self._parsers.parse_and_chunk(
                data, name=name, media_type=media_type, chunking=chunking, transcripts=told
            )
        else:
            notes = ()
        return self._checked(chunked, notes)

    async def _transcribe(
        self, reader: Generator, data: bytes, media_type: str, chunked: Chunked
    ) -> tuple[Mapping[int, str], tuple[str, ...]]:
        """What the model reads on each page, some at once; and what is to be said about it."""
        turns = asyncio.Semaphore(_PAGES_AT_ONCE)
        told: dict[int, str] = {}
        notes: list[str] = []

        async def transcribe(page: int) -> None:
            async with turns:
                drawn = await self._parsers.redraw(data, limits=self._limits, media_type=media_type, page=page)
                picture = Picture(data=drawn.data, media_type=drawn.media_type)
                system = load_prompt("transcribe", "en")
                reading = await read_picture(reader, picture, system=system, task=_TASK, max_tokens=_TRANSCRIPT_TOKENS)
            told[page] = reading.text
            if not reading.whole:
                notes.append(CUT_NOTE.format(page))

        try:
            async with asyncio.TaskGroup() as group:
                for page in chunked.unread[:_MAX_PAGES]:
                    group.create_task(transcribe(page))
        except* (ParseError, ProviderError) as errors:
            raise errors.exceptions[0] from None
        return told, tuple(notes)

    def _checked(self, chunked: Chunked, notes: tuple[str, ...]) -> Chunked:
        if chunked.unread and not chunked.pieces and not self._reader and not installed_languages():
            raise ParseError(UNREADABLE, code="needs_ocr")
        if chunked.unread and chunked.pieces:
            notes = (*notes, UNREAD_NOTE.format(len(chunked.unread)))
        return replace(chunked, notes=(*chunked.notes, *notes)) if notes else chunked
