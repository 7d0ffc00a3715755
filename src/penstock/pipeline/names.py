"""What a document may be called: a label for people, never a path that anything is opened by."""

import re
import unicodedata
from typing import Final

from penstock.errors import InvalidInput

NAME_CHARS: Final = 1024
_SEPARATORS: Final = re.compile(r"[\\/]+")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_TURNS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Characters that make `exe.fdp` read like `pdf.exe`."""


def clean_name(name: str) -> str:
    """A document's name, a mere label: a path without what could lead anywhere else. `InvalidInput` for the rest."""
    cleaned = "/".join(part for part in _SEPARATORS.split(name) if part not in {"", ".", ".."})
    if not 0 < len(cleaned) <= NAME_CHARS:
        raise InvalidInput(f"A document's name has 1 to {NAME_CHARS:,} characters, not {len(cleaned):,}.")
    if not cleaned.isprintable() and any(
        unicodedata.category(char) in {"Cc", "Cs"} or unicodedata.bidirectional(char) in _TURNS for char in cleaned
    ):
        raise InvalidInput("A document's name must not hold control characters or change the direction of text.")
    return cleaned


def entry_name(name: str) -> str:
    """The name of a file in an archive. `InvalidInput` (`unsafe_name`) for one that leads out of where it is."""
    parts = _SEPARATORS.split(name)
    if ".." in parts or name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise InvalidInput("Its name leads out of the archive.", code="unsafe_name")
    return clean_name(name)


def is_hidden(name: str) -> bool:
    """What a system or an editor left beside the documents; nobody means to ingest it."""
    return any(
        part.startswith(".") or part == "__MACOSX" for part in _SEPARATORS.split(name) if part not in {".", ".."}
    )


def shown(name: str) -> str:
    """Any name as one that can be stored and shown, for telling why it was refused."""
    text = name.encode("utf-8", "replace").decode()
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)[:NAME_CHARS] or "?"
