"""A reply's body as it was before it was packed for the way, never more than the limit."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable, Iterator

from penstock.fetch.targets import Refused

_PIECE_BYTES = 256 * 1024


async def unpack(body: AsyncIterable[bytes], encoding: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The body piece by piece. Raises `Refused` as soon as more than `max_bytes` have come, packed or unpacked."""
    unpacker = _unpacker(encoding)
    received = unpacked = 0
    async for packed in body:
        received += len(packed)
        for piece in _pieces(unpacker, packed):
            unpacked += len(piece)
            if max(received, unpacked) > max_bytes:
                raise Refused(f"more than {max_bytes} bytes")
            yield piece
    if unpacker and not unpacker.eof:
        raise Refused("a packed body that ends too early")


def _pieces(unpacker: "zlib._Decompress | None", packed: bytes) -> Iterator[bytes]:
    """However much a packet unpacks to, no piece of it is large."""
    if unpacker is None:
        yield packed
        return
    try:
        piece = unpacker.decompress(packed, _PIECE_BYTES)
        while piece:
            yield piece
            piece = unpacker.decompress(unpacker.unconsumed_tail, _PIECE_BYTES)
    except zlib.error as exc:
        raise Refused("a body that is not packed as it says") from exc


def _unpacker(encoding: str) -> "zlib._Decompress | None":
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return zlib.decompressobj(wbits=31)
        case "deflate":
            return zlib.decompressobj()
        case other:
            raise Refused(f"a body packed as {other[:40]!r}")
