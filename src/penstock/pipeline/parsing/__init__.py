"""Documents to text and pieces, in processes that may be killed.

The names of the parent's side load on first use: the parser processes import this package too, and have no need of
asyncio and pydantic (half of their start time and a third of their memory).
"""

from typing import TYPE_CHECKING, Any

from penstock.pipeline.parsing.records import (
    Chunked,
    ChunkingRequest,
    HeadingSpan,
    PageSpan,
    ParsedDocument,
    Piece,
)

if TYPE_CHECKING:
    from penstock.pipeline.parsing.options import ParsingOptions
    from penstock.pipeline.parsing.pool import ParserPool

__all__ = [
    "Chunked",
    "ChunkingRequest",
    "HeadingSpan",
    "PageSpan",
    "ParsedDocument",
    "ParserPool",
    "ParsingOptions",
    "Piece",
]


def __getattr__(name: str) -> Any:
    if name == "ParserPool":
        from penstock.pipeline.parsing.pool import ParserPool  # noqa: PLC0415 - see above

        return ParserPool
    if name == "ParsingOptions":
        from penstock.pipeline.parsing.options import ParsingOptions  # noqa: PLC0415 - see above

        return ParsingOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
