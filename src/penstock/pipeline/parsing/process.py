"""The parent's side of one parser process."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from math import ceil
from typing import IO, Self

import msgspec

from penstock.errors import ParseError, Unavailable
from penstock.pipeline.parsing.limits import MEMORY_EXIT_CODE
from penstock.pipeline.parsing.options import ParsingOptions
from penstock.pipeline.parsing.wire import (
    REPLY_LENGTH,
    REQUEST_LENGTHS,
    Reply,
    Request,
    decode_reply,
    encode_request,
)

_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "TESSDATA_PREFIX",
)
"""A parser sees no other environment variable: keys and passwords are not its business."""
_SET = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "RUST_BACKTRACE": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_READY_WITHIN_S = 60.0
_WRITE_SLICE_BYTES = 1 << 20
_BYTES_PER_CHAR = 4
_OVERHEAD_FACTOR = 4
"""A reply holds each character of the text at most this often: overlap repeats less than the text itself, the rest is
offsets and headings."""
_PICTURES_BYTES = 64 * 1024 * 1024
"""However short texts must be: a hundred pictures of a document have room in a reply."""
_STDERR_TAIL_BYTES = 4096
_OUT_OF_MEMORY_SIGNS = (b"memory allocation of", b"bad_alloc", b"MemoryError", b"out of memory", b"Cannot allocate")


class ParserDied(Exception):
    """The process ended in the middle of a document. `code` and `reason` tell of what, as far as can be known."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ParserProcess:
    """Started by `start`, ended by `stop`; between them `ask`, one document at a time."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stderr: IO[bytes],
        options: ParsingOptions,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._stderr = stderr
        text_bytes = options.max_text_chars * _BYTES_PER_CHAR * _OVERHEAD_FACTOR
        self._max_reply_bytes = max(text_bytes, _PICTURES_BYTES)
        self._memory_limit_mb = options.memory_limit_mb
        self.documents = 0
        self.rss_bytes = 0

    @classmethod
    async def start(cls, options: ParsingOptions) -> Self:
        """Returns when the process is ready for documents. Raises `Unavailable` when it does not get there."""
        ours, theirs = socket.socketpair()
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *_command(options, theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                    env=parser_environment(os.environ, options.environment),
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException as exc:
            ours.close()
            stderr.close()
            if isinstance(exc, OSError):
                raise Unavailable(f"A parser process could not be started: {exc}") from exc
            raise
        parser = cls(process, reader, writer, stderr, options)
        await parser._await_ready()
        return parser

    async def _await_ready(self) -> None:
        try:
            async with asyncio.timeout(_READY_WITHIN_S):
                await self._receive()
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, ParserDied | TimeoutError):
                raise Unavailable(f"A parser process did not start: {exc}") from exc
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, request: Request, data: bytes) -> Reply:
        """Raises `ParserDied`; then, and when this call is cancelled, the process is of no more use."""
        header = encode_request(request)
        self._writer.write(REQUEST_LENGTHS.pack(len(header), len(data)) + header)
        try:
            await self._send(data)
        except ConnectionError:
            raise await self._obituary() from None
        reply = await self._receive()
        self.documents += 1
        self.rss_bytes = reply.rss_bytes
        return reply

    async def stop(self) -> None:
        """Kills the process; there is nothing in it to save."""
        self._writer.close()
        try:
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
        finally:
            self._stderr.close()

    async def _send(self, data: bytes) -> None:
        """Slice by slice, so that a large document is not copied whole into the socket's buffer."""
        view = memoryview(data)
        for start in range(0, len(data), _WRITE_SLICE_BYTES):
            self._writer.write(view[start : start + _WRITE_SLICE_BYTES])
            await self._writer.drain()

    async def _receive(self) -> Reply:
        try:
            (length,) = REPLY_LENGTH.unpack(await self._reader.readexactly(REPLY_LENGTH.size))
            if length > self._max_reply_bytes:
                raise ParserDied(ParseError.code, f"its parser sent {length:,} bytes, more than any document can need")
            return decode_reply(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._obituary() from None
        except msgspec.MsgspecError as exc:
            raise ParserDied(ParseError.code, f"its parser sent nonsense ({exc})") from exc

    async def _obituary(self) -> ParserDied:
        """What the process died of, by its exit code and its last words."""
        exit_code = await self._process.wait()
        self._stderr.seek(0)
        last_words = self._stderr.read()[-_STDERR_TAIL_BYTES:]
        if exit_code == MEMORY_EXIT_CODE or any(sign in last_words for sign in _OUT_OF_MEMORY_SIGNS):
            return ParserDied("memory_limit", "it needs more memory than a parser may take")
        if exit_code < 0:
            name = signal.Signals(-exit_code).name
            hint = (
                f" (so ends a parser that needs more than its {self._memory_limit_mb} MiB)" if name == "SIGABRT" else ""
            )
            return ParserDied("parser_crashed", f"its parser was ended by {name}{hint}")
        words = " ".join(last_words.decode("utf-8", "replace").split())[-300:]
        return ParserDied("parser_crashed", f"its parser ended with exit code {exit_code}: {words}")


def parser_environment(ours: Mapping[str, str], wanted: Iterable[str] = ()) -> dict[str, str]:
    """What a parser process may see of our environment, `wanted` among it, and what it needs besides."""
    return {name: ours[name] for name in (*_PASSED_ON, *wanted) if name in ours} | _SET


def _command(options: ParsingOptions, socket_fd: int) -> list[str]:
    arguments = (
        socket_fd,
        os.getpid(),
        options.memory_limit_mb << 20,
        options.max_text_chars,
        ceil(options.time_limit_s),
    )
    return [sys.executable, "-m", "penstock.pipeline.parsing.child", *map(str, arguments)]
