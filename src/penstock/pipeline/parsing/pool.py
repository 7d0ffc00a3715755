"""A fixed number of parser processes that documents cannot harm: what a document breaks is replaced."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from penstock.errors import ParseError, Unavailable
from penstock.pipeline.media import WITH_PICTURES, shown_name
from penstock.pipeline.parsing.options import ParsingOptions, parser_identity
from penstock.pipeline.parsing.process import ParserDied, ParserProcess
from penstock.pipeline.parsing.records import (
    Chunked,
    ChunkingRequest,
    FoundPicture,
    ParsedDocument,
    PictureLimits,
    PictureSearch,
    PlainPicture,
)
from penstock.pipeline.parsing.registry import BUILT_IN, find_parser
from penstock.pipeline.parsing.short import ShortTexts
from penstock.pipeline.parsing.wire import Reply, Request

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PoolStats:
    """Counts since the pool was opened."""

    documents: int = 0
    started: int = 0
    recycled: int = 0
    crashed: int = 0
    timed_out: int = 0


class _Slot:
    """A place for one process, empty until it is first needed and after its process has ended."""

    def __init__(self) -> None:
        self.parser: ParserProcess | None = None


class ParserPool:
    """An async context manager. Callers beyond the number of processes wait for their turn, first come first served.

    Closing it kills what is running.
    """

    def __init__(self, options: ParsingOptions | None = None) -> None:
        self._options = options or ParsingOptions()
        self._slots = [_Slot() for _ in range(self._options.processes)]
        self._free: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        self._closed = False
        self._identities: dict[str, str] = {}
        self._short_texts = ShortTexts()
        self.stats = PoolStats()

    async def __aenter__(self) -> Self:
        """`ConfigError` when the options name a parser that is not installed."""
        for name in set(self._options.use.values()) - {BUILT_IN}:
            find_parser(name)
        for slot in self._slots:
            self._free.put_nowait(slot)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        await asyncio.gather(*(self._empty(slot) for slot in self._slots))

    async def prewarm(self) -> None:
        """Starts all processes now, so that no document pays for it."""
        async with asyncio.TaskGroup() as group:
            for _ in self._slots:
                group.create_task(self._start_one())

    def identity(self, media_type: str) -> str:
        """What decides about a document's text beside its bytes: versions, and the options that change it."""
        if media_type not in self._identities:
            self._identities[media_type] = parser_identity(self._options, media_type)
        return self._identities[media_type]

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that are alive now."""
        return tuple(slot.parser.pid for slot in self._slots if slot.parser)

    async def parse(self, data: bytes, *, name: str, media_type: str) -> ParsedDocument:
        """The text of a document with its pages and headings.

        Raises `ParseError`, with one of the codes `parse_failed`, `encrypted`, `archive_bomb`, `text_too_long`,
        `time_limit`, `memory_limit`, `parser_crashed`; `Unavailable` when no process can be started.
        """
        reply = await self._ask(name, self._request(media_type), data)
        if reply.parsed is None:
            raise _no_answer(name)
        return reply.parsed

    async def parse_and_chunk(
        self,
        data: bytes,
        *,
        name: str,
        media_type: str,
        chunking: ChunkingRequest,
        transcripts: Mapping[int, str] | None = None,
    ) -> Chunked:
        """The passages of a document; its text stays in the parser process. Raises as `parse` does.

        `transcripts` say what is on those of its pages that are pictures, where that is known already. A short plain
        text is read here and now: a process has nothing to add to it.
        """
        request = self._request(media_type, chunking, transcripts or {})
        if request.parser == BUILT_IN and (short := self._short_texts.read(data, media_type, chunking)):
            self.stats.documents += 1
            return short
        reply = await self._ask(name, request, data)
        if reply.chunked is None:
            raise _no_answer(name)
        return reply.chunked

    async def redraw(
        self, data: bytes, *, limits: PictureLimits, media_type: str = "image/*", page: int | None = None
    ) -> PlainPicture:
        """An image, or a page of a document, as a picture that is safe to hand on.

        Raises `ParseError` as `parse` does, or `bad_image`, `image_too_large`, `animated_image`.
        """
        reply = await self._ask("The image", Request(media_type=media_type, picture=limits, page=page), data)
        if reply.picture is None:
            raise _no_answer("The image")
        return reply.picture

    async def find_pictures(
        self, data: bytes, *, name: str, media_type: str, search: PictureSearch
    ) -> Sequence[FoundPicture]:
        """The pictures in a document that are wanted, redrawn, in its order; none in types that cannot have any.

        Raises as `parse` does; `bad_image` or `image_too_large` only for a document that is an image.
        """
        if media_type not in WITH_PICTURES:
            return ()
        reply = await self._ask(name, Request(media_type=media_type, search=search), data)
        if reply.found is None:
            raise _no_answer(name)
        return reply.found

    def _request(
        self, media_type: str, chunking: ChunkingRequest | None = None, transcripts: Mapping[int, str] | None = None
    ) -> Request:
        name = self._options.parser_of(media_type)
        return Request(
            media_type=media_type,
            chunking=chunking,
            parser=name,
            parser_options=dict(self._options.options.get(name, {})),
            ocr=self._options.ocr,
            transcripts=dict(transcripts or {}),
        )

    async def _ask(self, name: str, request: Request, data: bytes) -> Reply:
        async with self._slot() as slot:
            reply = await self._exchange(slot, name, request, data)
        self.stats.documents += 1
        if reply.problem is not None:
            raise ParseError(reply.problem.message, code=reply.problem.code)
        return reply

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[_Slot]:
        slot = await self._free.get()
        try:
            yield slot
        finally:
            self._free.put_nowait(slot)

    async def _exchange(self, slot: _Slot, name: str, request: Request, data: bytes) -> Reply:
        """One document through one process. A crash is held against the document only if it came in a fresh process.

        Its time is counted from the start of its first process's work.
        """
        clock = asyncio.get_running_loop().time
        ends_at = 0.0
        while True:
            parser = await self._parser(slot)
            was_fresh = parser.documents == 0
            ends_at = ends_at or clock() + self._options.time_limit_s
            try:
                async with asyncio.timeout_at(ends_at):
                    return await parser.ask(request, data)
            except TimeoutError:
                await self._empty(slot)
                self.stats.timed_out += 1
                raise ParseError(
                    f"{shown_name(name)} was not parsed within {self._options.time_limit_s:g} seconds. "
                    "Split it, or raise time_limit_s of the parsing settings.",
                    code="time_limit",
                ) from None
            except ParserDied as exc:
                await self._empty(slot)
                self.stats.crashed += 1
                logger.warning("a parser process died of %s: %s", shown_name(name), exc.reason)
                if was_fresh:
                    raise ParseError(f"{shown_name(name)} cannot be parsed: {exc.reason}.", code=exc.code) from exc
            except BaseException:  # cancelled: nobody will read the answer, so the process is not to be used again
                await self._empty(slot)
                raise

    async def _parser(self, slot: _Slot) -> ParserProcess:
        """The slot's process, a fresh one if it has none or an old one."""
        if self._closed:
            raise Unavailable("The parser pool is closed.")
        if slot.parser is not None and self._is_worn(slot.parser):
            await self._empty(slot)
            self.stats.recycled += 1
        if slot.parser is None:
            slot.parser = await ParserProcess.start(self._options)
            self.stats.started += 1
        return slot.parser

    def _is_worn(self, parser: ParserProcess) -> bool:
        return parser.documents >= self._options.recycle_after or parser.rss_bytes >= self._options.recycle_rss_mb << 20

    async def _start_one(self) -> None:
        async with self._slot() as slot:
            await self._parser(slot)

    @staticmethod
    async def _empty(slot: _Slot) -> None:
        parser, slot.parser = slot.parser, None
        if parser is not None:
            await parser.stop()


def _no_answer(name: str) -> ParseError:
    return ParseError(f"{shown_name(name)} cannot be parsed: its parser gave no answer.", code="parser_crashed")
