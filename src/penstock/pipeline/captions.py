"""What a model says that the pictures in a document show: each in a few words, asked for once."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.errors import ProviderError
from penstock.models.generator import Generator, Picture
from penstock.models.vision import read_picture
from penstock.pipeline.content_cache import ContentCache, caption_key
from penstock.pipeline.parsing.records import FoundPicture
from penstock.pipeline.parsing.text import clean
from penstock.pipeline.pictures import ImageOptions
from penstock.pipeline.prompts import language_of, load_prompt

FAILED_NOTE = "{} of the pictures in it could not be captioned ({}). Ingest it again to have that tried again."
BEYOND_NOTE = "{} more pictures in it were not captioned (images.captions_per_document)."
NOBODY_NOTE = "The pictures in it were not captioned: no model that takes pictures is configured."

_AT_ONCE = 4
_TASK = {"en": "Describe this picture.", "zh": "描述这张图片。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """Texts by the pictures' numbers, and what is to be said about those that have none; whether the model failed."""

    texts: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: bool = False


class Captioner:
    """`reader` is the model that takes pictures, if there is one; without a cache it is asked each time."""

    def __init__(self, reader: Generator | None, options: ImageOptions, cache: ContentCache | None) -> None:
        self._reader = reader
        self._options = options
        self._cache = cache

    @property
    def identity(self) -> str:
        """What decides about captions beside the pictures."""
        model = self._reader.model if self._reader else "nobody"
        return f"captions {self._options.captions_per_document} by {model}"

    async def describe(self, found: Sequence[FoundPicture], text: str) -> Captions:
        """Captions in the language of `text`, which stands in the document. What the model fails at is only noted."""
        if not found:
            return Captions()
        if self._reader is None:
            return Captions(notes=(NOBODY_NOTE,))
        most = self._options.captions_per_document
        texts: dict[int, str] = {}
        failures: list[str] = []
        turns = asyncio.Semaphore(_AT_ONCE)

        async def caption(reader: Generator, one: FoundPicture) -> None:
            async with turns:
                try:
                    texts[one.number] = await self._caption(reader, one, text)
                except ProviderError as exc:
                    failures.append(exc.message)

        async with asyncio.TaskGroup() as group:
            for one in found[:most]:
                group.create_task(caption(self._reader, one))
        notes = [FAILED_NOTE.format(len(failures), failures[0])] if failures else []
        if len(found) > most:
            notes.append(BEYOND_NOTE.format(len(found) - most))
        return Captions(texts=texts, notes=tuple(notes), failed=bool(failures))

    async def _caption(self, reader: Generator, one: FoundPicture, text: str) -> str:
        language = language_of(text)
        system = load_prompt("caption", language)
        key = caption_key(one.sha256, reader.model, system, self._options.describe_tokens)
        if self._cache and (known := await self._cache.caption(key)) is not None:
            return known
        picture = Picture(data=one.picture.data, media_type=one.picture.media_type)
        reading = await read_picture(
            reader, picture, system=system, task=_TASK[language], max_tokens=self._options.describe_tokens
        )
        caption = clean(reading.text).strip()
        if self._cache:
            self._cache.keep_caption(key, caption)
        return caption
