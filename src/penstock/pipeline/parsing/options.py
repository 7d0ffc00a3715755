"""The options of the parsing room."""

import os
from importlib.metadata import version

from pydantic import BaseModel, ConfigDict, Field


class ParsingOptions(BaseModel):
    """How documents are parsed: in how many processes, and what one document may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processes: int = Field(
        default_factory=lambda: min(2, os.cpu_count() or 1),
        ge=1,
        le=64,
        description="Parser processes. Each parses one document at a time.",
    )
    time_limit_s: float = Field(
        default=120.0, gt=0, description="Seconds one document may take; then its process is killed and it fails."
    )
    memory_limit_mb: int = Field(
        default=1024, ge=64, description="MiB that parsing may take beyond what an idle parser process holds."
    )
    max_text_chars: int = Field(
        default=10_000_000, ge=1, description="Characters of text one document may have; longer ones fail."
    )
    recycle_after: int = Field(
        default=5000, ge=1, description="Documents after which a parser process is replaced by a fresh one."
    )
    recycle_rss_mb: int = Field(
        default=300,
        ge=64,
        description="MiB of resident memory at which a parser process is replaced between documents.",
    )


PARSER_VERSION = 2
"""Counts up with each change here or in the chunkers that gives other text or passages for the same bytes."""
_COSTS = frozenset(
    {"processes", "time_limit_s", "memory_limit_mb", "max_text_chars", "recycle_after", "recycle_rss_mb"}
)
"""Options that decide about whether a document is parsed, not about what comes of it."""


def parser_identity(options: ParsingOptions) -> str:
    """Names everything but the bytes that a document's text follows from."""
    chosen = options.model_dump_json(exclude=set(_COSTS))
    return f"{PARSER_VERSION} kreuzberg {version('kreuzberg')} splitter {version('semantic-text-splitter')} {chosen}"
