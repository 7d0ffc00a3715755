"""The parent's side of unpacking: files of an archive as they come, whatever the archive does to the process."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from penstock.errors import InvalidInput, Unavailable
from penstock.pipeline.archives.wire import FRAME, MAX_FRAME_BYTES, Ending, Frame, Named
from penstock.pipeline.parsing.process import parser_environment

_MIB = 1024 * 1024


class ArchiveOptions(BaseModel):
    """What an archive may hold, and what unpacking it may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_entries: int = Field(200_000, gt=0, description="files and folders in an archive; with more it is refused")
    max_unpacked_bytes: int = Field(8 * 1024 * _MIB, gt=0, description="of all its files; unpacking stops there")
    max_file_bytes: int = Field(100 * _MIB, gt=0, description="of one file in it; a larger one is refused")
    memory_limit_mb: int = Field(768, ge=64, description="of the process that unpacks")
    stalled_s: float = Field(60.0, gt=0, description="a process that brings nothing for so long is killed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A file of an archive. `blocks` are its bytes, to be read before the next file; they may end in `InvalidInput`."""

    number: int
    name: str
    blocks: AsyncIterator[bytes]


async def unpack(archive: IO[bytes], options: ArchiveOptions, *, skip: int = 0) -> AsyncGenerator[Unpacked, None]:
    """The files of a zip, tar or tar.gz behind number `skip`, in order. `archive` is a real file, at its start.

    `InvalidInput` with a code when the archive as a whole is refused or damaged (what came before is good),
    `Unavailable` when the process could not be started.
    """
    async with _process(archive, options, skip) as reader:
        frames = _Frames(reader, options.stalled_s)
        while True:
            kind, body = await frames.next()
            if kind is Frame.ENTRY:
                named = msgspec.json.decode(body, type=Named)
                blocks = frames.blocks()
                yield Unpacked(number=named.number, name=named.name, blocks=blocks)
                async for _ in blocks:  # what nobody wanted
                    pass
            elif kind is Frame.DONE:
                _check(msgspec.json.decode(body, type=Ending))
                return


@asynccontextmanager
async def _process(archive: IO[bytes], options: ArchiveOptions, skip: int) -> AsyncIterator[asyncio.StreamReader]:
    arguments = (
        os.getpid(),
        options.memory_limit_mb << 20,
        options.max_file_bytes,
        options.max_unpacked_bytes,
        options.max_entries,
        skip,
    )
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock.pipeline.archives.child",
            *map(str, arguments),
            stdin=archive,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=parser_environment(os.environ),
            limit=2 * MAX_FRAME_BYTES,
        )
    except OSError as exc:
        raise Unavailable(f"A process to unpack with could not be started: {exc}") from exc
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        while await process.stdout.read(_MIB):  # else its pipe would keep it from being waited for
            pass
        await process.wait()


class _Frames:
    """Frame by frame, with a time-out for each."""

    def __init__(self, reader: asyncio.StreamReader, stalled_s: float) -> None:
        self._reader = reader
        self._stalled_s = stalled_s

    async def next(self) -> tuple[Frame, bytes]:
        try:
            async with asyncio.timeout(self._stalled_s):
                length, kind = FRAME.unpack(await self._reader.readexactly(FRAME.size))
                if length > MAX_FRAME_BYTES:
                    raise InvalidInput("The archive broke the process that unpacks it.", code="damaged_archive")
                return Frame(kind), await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as exc:
            raise InvalidInput(
                "The archive broke the process that unpacks it: it is damaged, or made to do so.",
                code="damaged_archive",
            ) from exc
        except TimeoutError as exc:
            raise InvalidInput(
                f"Unpacking the archive brought nothing for {self._stalled_s:g} s.", code="time_limit"
            ) from exc

    async def blocks(self) -> AsyncIterator[bytes]:
        while True:
            kind, body = await self.next()
            if kind is Frame.END:
                _check(msgspec.json.decode(body, type=Ending))
                return
            if kind is Frame.DONE:
                _check(msgspec.json.decode(body, type=Ending))
                raise InvalidInput("The archive ends in the middle of a file.", code="damaged_archive")
            yield body


def _check(ending: Ending) -> None:
    if ending.code:
        raise InvalidInput(ending.message, code=ending.code)
