"""What a parser process and its parent say to each other over a socket pair.

A request is two lengths, a msgpack header and the document's raw bytes; a reply is one length and a msgpack record.
The parent checks every reply against its type and size: a document that takes over its parser gains nothing but lies
about itself.
"""

import struct
from typing import Any

import msgspec

from penstock.pipeline.parsing.records import (
    Chunked,
    ChunkingRequest,
    FoundPicture,
    OcrLimits,
    ParsedDocument,
    PictureLimits,
    PictureSearch,
    PlainPicture,
)

REQUEST_LENGTHS = struct.Struct("<IQ")
"""Length of the header, then of the document's bytes."""
REPLY_LENGTH = struct.Struct("<Q")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One document. Without `chunking` the reply holds the parsed document itself; with `picture` an image, redrawn,
    or a `page` of the document; with `search` the pictures in it.

    `transcripts` are what its pictures say, by page, where that is known already.
    """

    media_type: str
    chunking: ChunkingRequest | None = None
    parser: str = "kreuzberg"
    parser_options: dict[str, Any] = {}
    picture: PictureLimits | None = None
    search: PictureSearch | None = None
    page: int | None = None
    ocr: OcrLimits | None = None
    transcripts: dict[int, str] = {}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a document cannot be parsed: `code` and `message` of a `ParseError`."""

    code: str
    message: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of the first five is set, but in the greeting that says that the process is ready."""

    parsed: ParsedDocument | None = None
    chunked: Chunked | None = None
    picture: PlainPicture | None = None
    found: tuple[FoundPicture, ...] | None = None
    problem: Problem | None = None
    rss_bytes: int = 0


encode_request = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
encode_reply = msgspec.msgpack.Encoder().encode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
