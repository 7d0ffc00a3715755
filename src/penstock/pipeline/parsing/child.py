"""A parser process: `python -m penstock.pipeline.parsing.child SOCKET_FD PARENT_PID MEMORY_BYTES MAX_CHARS TIME_S`.

It reads documents from the socket one by one, and answers each. It holds no state but its tokenizers, and may be killed
at any moment. Only what is needed for that is imported: it starts in a fraction of a second.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from penstock.errors import ParseError, PenstockError
from penstock.pipeline.chunking.chunker import ChunkerCache
from penstock.pipeline.media import IMAGES, PDF
from penstock.pipeline.parsing.limits import die_with_parent, forbid_dumps_and_files, limit_memory, rss_bytes
from penstock.pipeline.parsing.records import (
    Chunked,
    FoundPicture,
    OcrLimits,
    ParsedDocument,
    PictureLimits,
    PictureSearch,
    PlainPicture,
)
from penstock.pipeline.parsing.registry import BUILT_IN, ParserCache
from penstock.pipeline.parsing.wire import (
    REPLY_LENGTH,
    REQUEST_LENGTHS,
    Problem,
    Reply,
    Request,
    decode_request,
    encode_reply,
)

_WITH_PICTURES = IMAGES | {PDF}
_ALARM_GRACE_S = 5
"""The parent kills us at the time limit. Should it have died meanwhile, the alarm does."""


class Arguments(NamedTuple):
    socket_fd: int
    parent_pid: int
    memory_bytes: int
    max_text_chars: int
    time_limit_s: int


def main() -> None:
    arguments = Arguments(*map(int, sys.argv[1:]))
    die_with_parent(arguments.parent_pid)
    forbid_dumps_and_files()
    parser = DocumentParser(arguments.max_text_chars)
    limit_memory(arguments.memory_bytes)
    with socket.socket(fileno=arguments.socket_fd) as channel, channel.makefile("rb") as requests:
        _send(channel, Reply(rss_bytes=rss_bytes()))
        for request, data in _read(requests):
            os.ftruncate(sys.stderr.fileno(), 0)  # what the parent finds there after a crash is about this document
            signal.alarm(arguments.time_limit_s + _ALARM_GRACE_S)
            _send(channel, parser.answer(request, data))
            signal.alarm(0)


class DocumentParser:
    """Bytes in, a reply out, whatever the bytes are."""

    def __init__(self, max_text_chars: int) -> None:
        self._max_text_chars = max_text_chars
        self._parsers = ParserCache()
        self._parsers.get(BUILT_IN, {})  # most documents' parser is loaded before the first of them comes
        self._chunkers = ChunkerCache()

    def answer(self, request: Request, data: bytes) -> Reply:
        try:
            if request.picture is not None:
                return Reply(picture=_draw(data, request, request.picture), rss_bytes=rss_bytes())
            if request.search is not None:
                return Reply(found=_find(data, request.media_type, request.search), rss_bytes=rss_bytes())
            parser = self._parsers.get(request.parser, request.parser_options)
            document = parser.parse(data, request.media_type)
            if request.ocr is not None and request.media_type in _WITH_PICTURES:
                document = _complete(document, data, request, request.ocr)
            self._check_length(document)
            if request.chunking is None:
                return Reply(parsed=document, rss_bytes=rss_bytes())
            chunker = self._chunkers.get(request.chunking)
            pieces = chunker.chunk(document, request.chunking.chunker)
        except PenstockError as exc:
            return _problem(exc.code, exc.message)
        except MemoryError:
            return _problem("memory_limit", "The document needs more memory than a parser may take.")
        except RecursionError:
            return _problem(ParseError.code, "The document is nested too deeply to be read.")
        except Exception as exc:  # the outer edge: a document that breaks its parser is that document's failure
            return _problem(ParseError.code, f"The document broke its parser ({type(exc).__name__}: {exc}).")
        chunked = Chunked(
            pieces=pieces,
            pages=document.page_count,
            media_type=document.media_type,
            title=document.title,
            notes=document.notes,
            unread=document.unread,
        )
        return Reply(chunked=chunked, rss_bytes=rss_bytes())

    def _check_length(self, document: ParsedDocument) -> None:
        if len(document.text) > self._max_text_chars:
            raise ParseError(
                f"The document holds {len(document.text):,} characters of text; {self._max_text_chars:,} are allowed. "
                "Split it, or raise max_text_chars of the parsing settings.",
                code="text_too_long",
            )


def _draw(data: bytes, request: Request, limits: PictureLimits) -> PlainPicture:
    from penstock.pipeline.parsing import pictures, scans  # noqa: PLC0415 - few processes ever need Pillow

    if request.media_type != PDF or request.page is None:
        return pictures.plain_picture(data, limits, frame=request.page)
    with scans.pdf_file(data) as path:
        return pictures.plain_image(scans.rendered(path, request.page, scans.PICTURE_DPI), limits)


def _find(data: bytes, media_type: str, search: PictureSearch) -> tuple[FoundPicture, ...]:
    from penstock.pipeline.parsing.inner_pictures import find_pictures  # noqa: PLC0415 - see above

    return find_pictures(data, media_type, search)


def _complete(document: ParsedDocument, data: bytes, request: Request, limits: OcrLimits) -> ParsedDocument:
    from penstock.pipeline.parsing.scans import Scans  # noqa: PLC0415 - see above

    return Scans(limits, request.transcripts).complete(document, data)


def _problem(code: str, message: str) -> Reply:
    return Reply(problem=Problem(code=code, message=message[:1000]), rss_bytes=rss_bytes())


def _read(requests: BinaryIO) -> Iterator[tuple[Request, bytes]]:
    """Requests until the parent closes its end."""
    while lengths := requests.read(REQUEST_LENGTHS.size):
        header_length, data_length = REQUEST_LENGTHS.unpack(lengths)
        header = requests.read(header_length)
        yield decode_request(header), requests.read(data_length)


def _send(channel: socket.socket, reply: Reply) -> None:
    body = encode_reply(reply)
    channel.sendall(REPLY_LENGTH.pack(len(body)) + body)


if __name__ == "__main__":
    main()
