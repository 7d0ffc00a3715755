"""Metadata as text that sorts and compares like the values themselves, for engines that only have strings.

3 → "n8…", a number as 16 hex digits in numeric order      true → "b1"      null → "z"      "x" → "sx"
"""

import struct
from collections.abc import Mapping

from penstock.filters import MAX_TEXT_CHARS, Scalar, scalars
from penstock.types import JSON

_SIGN = 1 << 63


def encode(value: Scalar) -> str:
    """The value as text: the first letter is its kind, and within a kind texts sort by code point as values do."""
    if value is None:
        return "z"
    if isinstance(value, bool):
        return f"b{value:d}"
    if isinstance(value, str):
        # One more than a filter's string may have: enough to tell every longer value from it, and to sort after it.
        return "s" + value[: MAX_TEXT_CHARS + 1].encode("utf-8", "replace").decode("utf-8")
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))  # + 0.0: minus zero is zero
    return f"n{bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN:016x}"


def fields(metadata: Mapping[str, JSON]) -> dict[str, list[str]]:
    """Every field with its comparable values, encoded; a field without any (an object, an empty list) has none."""
    return {name: sorted({encode(value) for value in scalars(content)}) for name, content in metadata.items()}


def facet(field: str, value: Scalar) -> str:
    """One string for "the field has this value"."""
    return f"{len(field)}:{field}{encode(value)}"


def presence(field: str) -> str:
    """One string for "the field exists"."""
    return f"{len(field)}:{field}?"


def facets(metadata: Mapping[str, JSON]) -> list[str]:
    """All facets of a row: what `facet` and `presence` give for its fields."""
    return [
        facet_text
        for name, values in fields(metadata).items()
        for facet_text in (presence(name), *(f"{len(name)}:{name}{value}" for value in values))
    ]
