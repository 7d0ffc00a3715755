"""Images of questions: stored as they came, redrawn before anyone sees them, described for the search."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from penstock.blobs.base import BlobStore
from penstock.errors import NotFound, ParseError
from penstock.ledger.base import Ledger
from penstock.models.generator import Generator, Picture
from penstock.models.vision import Reading, read_picture
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.pipeline.parsing.records import PictureLimits, PictureSearch
from penstock.pipeline.prompts import describe_prompt, language_of, load_prompt
from penstock.types import Hit

logger = logging.getLogger(__name__)

_SHOWN_OF = 3
_SHOWN_SCORE = 0.2
"""A picture is worth a look when it is among the first hits, and not only for want of others."""

_INNER_SIDE = 1024
_INNER_BYTES = 512 * 1024
"""Of a picture in a document: more than an image model sees, enough to describe it, and many fit into memory."""


class ImageOptions(BaseModel):
    """What an image of a question may be, and what becomes of it before a model sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(10 * 1024 * 1024, gt=0, description="as it is sent")
    max_pixels: int = Field(50_000_000, gt=0, description="as it is sent: width times height")
    max_side: int = Field(2048, ge=64, description="pixels of the longer side, as a model is given it")
    model_bytes: int = Field(3 * 1024 * 1024, ge=4096, description="as a model is given it")
    folder: Path | None = Field(
        None, description="`image_path` of a question names a file below this; none: switched off"
    )
    describe: bool = Field(True, description="search also for what the vision model says that the image shows")
    describe_tokens: int = Field(160, ge=16, description="of such a description, and of a caption, at most")
    min_side: int = Field(
        64, ge=1, description="pictures in documents with a shorter side are passed over: icons, lines"
    )
    per_document: int = Field(64, ge=1, le=100, description="pictures in one document that are looked at, at most")
    captions_per_document: int = Field(
        24, ge=1, description="of these, how many the vision model describes, in collections with `captions`"
    )
    shown: int = Field(
        2, ge=0, le=8, description="pictures found in documents that the vision model is given with a question, at most"
    )
    processes: int = Field(
        1, ge=1, le=16, description="that redraw images; documents never wait for them, nor they for documents"
    )
    time_limit_s: float = Field(10.0, gt=0, description="for redrawing one")
    memory_limit_mb: int = Field(768, ge=64, description="for redrawing one")

    @property
    def limits(self) -> PictureLimits:
        return PictureLimits(max_pixels=self.max_pixels, max_side=self.max_side, max_bytes=self.model_bytes)

    @property
    def search(self) -> PictureSearch:
        """What is wanted of the pictures in a document that is ingested."""
        limits = PictureLimits(max_pixels=self.max_pixels, max_side=_INNER_SIDE, max_bytes=_INNER_BYTES)
        return PictureSearch(limits=limits, min_side=self.min_side, most=self.per_document)

    def parser_pool(self) -> ParserPool:
        """Processes of their own: a person who asks does not wait for a folder of scans to be parsed."""
        return ParserPool(
            ParsingOptions(
                processes=self.processes, time_limit_s=self.time_limit_s, memory_limit_mb=self.memory_limit_mb
            )
        )


class Pictures:
    """Blobs to what a model may see. `reader` is the model that takes pictures, if there is one."""

    def __init__(
        self, blobs: BlobStore, drawers: ParserPool, reader: Generator | None, options: ImageOptions | None = None
    ) -> None:
        self._blobs = blobs
        self._drawers = drawers
        self._options = options or ImageOptions()
        self.reader = reader

    async def open(self, sha256: str) -> Picture | None:
        """The image, redrawn; None where no model could look at it. Raises `ParseError` for one that is refused."""
        return await self.draw(sha256) if self.reader else None

    async def draw(self, sha256: str) -> Picture:
        """The image, redrawn, for a model or to be compared with others. Raises as `open` does."""
        try:
            data = await self._blobs.get(sha256)
        except NotFound as exc:
            raise ParseError("The image is not stored any more. Send it again.", code="bad_image") from exc
        plain = await self._drawers.redraw(data, limits=self._options.limits)
        return Picture(data=plain.data, media_type=plain.media_type)

    async def of_hits(self, hits: Sequence[Hit], ledger: Ledger) -> Mapping[str, Picture]:
        """The best pictures among the first hits, by chunk id, for the model to look at; those that can be had."""
        best = [hit for hit in hits[:_SHOWN_OF] if hit.chunk.picture is not None and hit.score >= _SHOWN_SCORE]
        shown: dict[str, Picture] = {}
        for hit in best[: self._options.shown] if self.reader else ():
            try:
                work = await ledger.get_version(hit.chunk.version_id)
                found = await self._drawers.find_pictures(
                    await self._blobs.get(work.sha256),
                    name=work.name,
                    media_type=work.media_type,
                    search=PictureSearch(limits=self._options.limits, min_side=1, most=1, number=hit.chunk.picture),
                )
            except (NotFound, ParseError) as exc:
                logger.warning("Picture %s of %s cannot be shown: %s", hit.chunk.picture, hit.document_name, exc)
                continue
            for one in found:
                shown[hit.chunk.id] = Picture(data=one.picture.data, media_type=one.picture.media_type)
        return shown

    async def describe(self, picture: Picture, question: str) -> Reading | None:
        """What the image shows, in few words, for the search; None where that is switched off."""
        if self.reader is None or not self._options.describe:
            return None
        language = language_of(question)
        return await read_picture(
            self.reader,
            picture,
            system=load_prompt("describe", language),
            task=describe_prompt(question, language),
            max_tokens=self._options.describe_tokens,
        )
