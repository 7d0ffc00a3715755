"""Which names the ledger takes, and how the JSON in its columns is written."""

import unicodedata
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from penstock.errors import InvalidInput
from penstock.types import JSON

T = TypeVar("T")

COLLECTION_NAME_CHARS = 64
DOCUMENT_NAME_CHARS = 1024


def collection_name(name: str) -> str:
    """1 to 64 letters and digits of any script, `.`, `_` and `-`, the first a letter, a digit or `_`; in Unicode NFC.

    So a name can stand in a path: `.` and `..` are impossible, and two spellings of one name are one name.
    """
    name = unicodedata.normalize("NFC", name)
    allowed = all(char.isalnum() or char in "._-" or unicodedata.category(char)[0] == "M" for char in name)
    if not (0 < len(name) <= COLLECTION_NAME_CHARS and allowed and (name[0].isalnum() or name[0] == "_")):
        raise InvalidInput(
            f"A collection's name has 1 to {COLLECTION_NAME_CHARS} letters, digits, '.', '_' or '-', "
            f"and begins with a letter, a digit or '_': {name[:80]!a} does not."
        )
    return name


def document_name(name: str) -> str:
    """Any text of 1 to 1024 characters that can be stored and shown: no NUL, no half of a surrogate pair."""
    if not 0 < len(name) <= DOCUMENT_NAME_CHARS:
        raise InvalidInput(f"A document's name has 1 to {DOCUMENT_NAME_CHARS} characters, not {len(name)}.")
    return storable(name, "A document's name")


def storable(text: str, what: str) -> str:
    """`InvalidInput` for text that not every database can hold: with NUL or half of a surrogate pair in it."""
    if "\0" in text:
        raise InvalidInput(f"{what} must not hold a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"{what} is not valid Unicode: a lone surrogate at character {exc.start}.") from exc
    return text


def to_json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as exc:  # UnicodeEncodeError is a ValueError
        raise InvalidInput(f"This cannot be written as JSON: {exc}") from exc


def from_json(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)


def metadata_of(text: str) -> Mapping[str, JSON]:
    """Metadata as it was stored. Most documents have none, so that case is not parsed."""
    return {} if text == "{}" else from_json(text, dict[str, JSON])
