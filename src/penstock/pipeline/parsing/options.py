"""The options of the parsing room."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from penstock.pipeline.parsing.records import OcrLimits
from penstock.pipeline.parsing.registry import BUILT_IN, parser_version


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

    ocr_languages: tuple[str, ...] = Field(
        default=("chi_sim", "eng"),
        description="Languages of tesseract in which pictures are read, the likeliest first; empty: they are not.",
    )
    ocr_max_pages: int = Field(default=500, ge=1, description="Pages of one document that are read as pictures.")
    ocr_max_pixels: int = Field(default=100_000_000, ge=1, description="Width times height of a picture that is read.")
    use: Mapping[str, str] = Field(
        default_factory=dict,
        description="Parsers by media type, such as `application/pdf`, `image/*` or `*`; kreuzberg reads what is not "
        "named. Others come with packages that have entry points in `penstock.parsers`.",
    )
    options: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Options of such a parser, by its name; what they are, it says itself."
    )
    environment: tuple[str, ...] = Field(
        default=(),
        description="Environment variables that parser processes see, such as HF_HOME or the key of a service.",
    )

    @property
    def ocr(self) -> OcrLimits:
        """Reading pictures stops early enough for the rest of the document to be kept."""
        return OcrLimits(
            languages=self.ocr_languages,
            time_s=0.7 * self.time_limit_s,
            max_pages=self.ocr_max_pages,
            max_pixels=self.ocr_max_pixels,
        )

    def parser_of(self, media_type: str) -> str:
        """The name of the parser that reads the type: the most exact of `use` counts."""
        family = media_type.partition("/")[0]
        return next((self.use[key] for key in (media_type, f"{family}/*", "*") if key in self.use), BUILT_IN)


PARSER_VERSION = 3
"""Counts up with each change here or in the chunkers that gives other text or passages for the same bytes."""
_COSTS = frozenset(
    {"processes", "time_limit_s", "memory_limit_mb", "max_text_chars", "recycle_after", "recycle_rss_mb"}
)
_OF_OTHERS = frozenset({"use", "options", "environment"})
"""Options that decide about whether a document is parsed, not about what comes of it; and those of other parsers."""


def parser_identity(options: ParsingOptions, media_type: str) -> str:
    """Names everything but its bytes that a document's text follows from."""
    name = options.parser_of(media_type)
    if name != BUILT_IN:
        return f"{PARSER_VERSION} {parser_version(name)} {json.dumps(options.options.get(name, {}), sort_keys=True)}"
    chosen = options.model_dump_json(exclude=set(_COSTS | _OF_OTHERS))
    return f"{PARSER_VERSION} {name} {version(name)} {chosen}"
