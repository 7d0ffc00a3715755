"""Documents to passages, their pictures looked at too: read by tesseract in the parser, else by a model that sees them;
found for an image model, and described in a few words, where the collection asks for that."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.errors import ParseError, ProviderError
from penstock.models.generator import Generator, Picture
from penstock.models.vision import read_picture
from penstock.pipeline import media
from penstock.pipeline.captions import Captioner
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.parsing import Chunked, ChunkingRequest, ParserPool
from penstock.pipeline.parsing.ocr import installed_languages
from penstock.pipeline.parsing.records import FoundPicture, PictureSpot
from penstock.pipeline.picture_shelf import PictureShelf
from penstock.pipeline.pictures import ImageOptions
from penstock.pipeline.prompts import load_prompt
from penstock.types import CollectionOptions

UNREADABLE = (
    "The document is a picture, or all its pages are, and nothing here can read those. Install tesseract where the "
    "worker runs (Debian: tesseract-ocr tesseract-ocr-chi-sim), or configure a model that takes pictures "
    "(PENSTOCK_VISION__PRESET)."
)
CUT_NOTE = "What the model read on page {} was cut off at its token limit."
UNREAD_NOTE = "{} pages are pictures that were not read."
ONLY_SEEN_NOTE = "Nothing here could read the picture: it is found by what it shows alone."
UNSEEN_NOTE = "The pictures in it could not be looked at: {}"

_WITH_SCANS = media.IMAGES | {media.PDF}
_TRANSCRIPT_TOKENS = 4096
_PAGES_AT_ONCE = 4
_MAX_PAGES = 200
_TASK = "Write down what this image holds."


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a collection wants of the pictures in a document: to find them, to have them described.

    With the `sha256` of the document's bytes they are kept at hand for whoever asks for `pictures` next.
    """

    find: bool = False
    captions: bool = False
    sha256: str = ""

    @classmethod
    def of(cls, options: CollectionOptions, sha256: str = "") -> "Look":
        return cls(find=options.image_model is not None, captions=options.captions, sha256=sha256)


class DocumentReader:
    """A parser pool and, where there is one, a model (`reader`) that sees the pictures which the pool left unread."""

    def __init__(
        self, parsers: ParserPool, reader: Generator | None, options: ImageOptions, cache: ContentCache | None = None
    ) -> None:
        self._parsers = parsers
        self._reader = reader
        self._options = options
        self._captioner = Captioner(reader, options, cache)
        self._shelf = PictureShelf()

    def identity(self, media_type: str, look: Look | None = None) -> str:
        """What decides about a document's passages and pictures beside its bytes."""
        identity = self._parsers.identity(media_type)
        if media_type in _WITH_SCANS:
            seen_by = self._reader.model if self._reader else "nobody"
            identity = f"{identity} tesseract {'+'.join(sorted(installed_languages()))} seen by {seen_by}"
        if look and (look.find or look.captions) and media_type in media.WITH_PICTURES:
            identity = f"{identity} pictures {self._options.min_side} {self._options.per_document}"
            identity += f" {self._captioner.identity}" if look.captions else ""
        return identity

    async def parse_and_chunk(
        self, data: bytes, *, name: str, media_type: str, chunking: ChunkingRequest, look: Look | None = None
    ) -> Chunked:
        """The passages of a document, and where it has pictures, if somebody wants to `look` for them.

        Raises what the pool raises, `ProviderError`, and `ParseError` (`needs_ocr`).
        """
        chunked = await self._parsers.parse_and_chunk(data, name=name, media_type=media_type, chunking=chunking)
        told: Mapping[int, str] = {}
        notes: tuple[str, ...] = ()
        if chunked.unread and self._reader:
            told, notes = await self._transcribe(self._reader, data, media_type, chunked)
            chunked = await self._parsers.parse_and_chunk(
                data, name=name, media_type=media_type, chunking=chunking, transcripts=told
            )
        if look and (look.find or look.captions):
            chunked = await self._look(chunked, data, name, media_type, look, frozenset(told))
        return self._checked(chunked, notes, seen=bool(look and look.find and chunked.pictures))

    async def pictures(self, data: bytes, *, name: str, media_type: str, sha256: str = "") -> Sequence[FoundPicture]:
        """The pictures in a document, by their numbers in `Chunked.pictures`. Raises what the pool raises.

        `sha256` of its bytes: those that were found a moment ago, while it was parsed, are not looked for again.
        """
        return self._shelf.take(sha256) or await self._parsers.find_pictures(
            data, name=name, media_type=media_type, search=self._options.search
        )

    async def _look(
        self, chunked: Chunked, data: bytes, name: str, media_type: str, look: Look, told: frozenset[int]
    ) -> Chunked:
        """`told` are pages that the model was shown as a whole: what is on them it has described already."""
        try:
            found = await self.pictures(data, name=name, media_type=media_type)
        except ParseError as exc:
            return replace(chunked, notes=(*chunked.notes, UNSEEN_NOTE.format(exc.message)), complete=False)
        spots = [PictureSpot(number=one.number, page=one.page) for one in found]
        if look.find and look.sha256:
            self._shelf.put(look.sha256, found)
        if not look.captions:
            return replace(chunked, pictures=tuple(spots))
        fresh = [one for one in found if (one.page or 1) not in told]
        captions = await self._captioner.describe(fresh, " ".join(piece.text for piece in chunked.pieces[:3]))
        return replace(
            chunked,
            pictures=tuple(replace(spot, caption=captions.texts.get(spot.number, "")) for spot in spots),
            notes=(*chunked.notes, *captions.notes),
            complete=not captions.failed,
        )

    async def _transcribe(
        self, reader: Generator, data: bytes, media_type: str, chunked: Chunked
    ) -> tuple[Mapping[int, str], tuple[str, ...]]:
        """What the model reads on each page, some at once; and what is to be said about it."""
        turns = asyncio.Semaphore(_PAGES_AT_ONCE)
        told: dict[int, str] = {}
        notes: list[str] = []

        async def transcribe(page: int) -> None:
            async with turns:
                drawn = await self._parsers.redraw(data, limits=self._options.limits, media_type=media_type, page=page)
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

    def _checked(self, chunked: Chunked, notes: tuple[str, ...], *, seen: bool) -> Chunked:
        """`seen`: an image model looks at its pictures, so that it is found even if nobody can read it."""
        if chunked.unread and not chunked.pieces and not self._reader and not installed_languages():
            if not seen:
                raise ParseError(UNREADABLE, code="needs_ocr")
            notes = (*notes, ONLY_SEEN_NOTE)
        if chunked.unread and chunked.pieces:
            notes = (*notes, UNREAD_NOTE.format(len(chunked.unread)))
        return replace(chunked, notes=(*chunked.notes, *notes)) if notes else chunked
