"""Metadata as sets of strings, for engines whose indexes can only tell whether a row has a string or not.

A row has, for every field, the facet that the field exists, one for each of its values, and for each number also those
of its first digits in an encoding that sorts as numbers do:

    {"year": 2021}  →  "4:year?"  "4:yearnc09f94$"  "4:yearnc" "4:yearnc0" "4:yearnc09" … "4:yearnc09f94"

So equality is one facet, and a range of numbers is a handful: those whose first digits say that all behind them is
inside (the trie of Schindler and Diepenbroek, "Generic XML-based framework for metadata portals", 2008, as in Lucene).
"""

import struct
from collections.abc import Mapping

from penstock.filters import MAX_TEXT_CHARS, Op, Scalar, scalars
from penstock.types import JSON

HEX = "0123456789abcdef"
_SIGN = 1 << 63


def encode(value: Scalar) -> str:
    """The value as text: the first letter is its kind, and strings sort by code point as they did.

    3 → "nc008$", the digits of the number (see `_digits`) · true → "b1" · null → "z" · "x" → "sx"
    """
    if value is None:
        return "z"
    if isinstance(value, bool):
        return f"b{value:d}"
    if isinstance(value, str):
        # One more than a filter's string may have: enough to tell every longer value from it, and to sort after it.
        return "s" + value[: MAX_TEXT_CHARS + 1].encode("utf-8", "replace").decode("utf-8")
    return f"n{_digits(value)}$"


def fields(metadata: Mapping[str, JSON]) -> dict[str, list[str]]:
    """Every field with its encoded values; a field without any (an object, an empty list) has none."""
    return {name: sorted({encode(value) for value in scalars(content)}) for name, content in metadata.items()}


def facets(metadata: Mapping[str, JSON]) -> list[str]:
    """All facets of a row."""
    found: set[str] = set()
    for name, content in metadata.items():
        found.add(presence(name))
        for value in scalars(content):
            found.add(facet(name, value))
            if isinstance(value, float):
                digits = _digits(value)
                found.update(_number(name, digits[:length]) for length in range(1, len(digits) + 1))
    return sorted(found)


def presence(field: str) -> str:
    """The facet of "the field exists"."""
    return f"{len(field)}:{field}?"


def facet(field: str, value: Scalar) -> str:
    """The facet of "the field has this value"."""
    return f"{len(field)}:{field}{encode(value)}"


def in_range(field: str, op: Op, bound: float) -> list[str]:
    """The facets of which a row has one or more exactly when the field has a number that compares so with the bound."""
    digits = _digits(bound)
    lengths = range(len(digits))
    if op in {Op.GT, Op.GTE}:
        beyond = [digits[:length] + digit for length in lengths for digit in HEX if digit > digits[length]]
        last = [digits] if op is Op.GTE else [digits + digit for digit in HEX]
    else:
        beyond = [digits[:length] + digit for length in lengths for digit in HEX if digit < digits[length]]
        # Numbers whose digits are the bound's first ones, and no more, are less.
        last = [f"{digits[:length]}$" for length in range(1, len(digits) + (op is Op.LTE))]
    return [_number(field, found) for found in (*beyond, *last)]


def _number(field: str, digits: str) -> str:
    return f"{len(field)}:{field}n{digits}"


def _digits(value: float) -> str:
    """The number in hex digits that sort as numbers do, without zeros at the end: few for the usual ones.

    The bits of an IEEE 754 double, with the sign turned around (for negative numbers all bits), compare as integers.
    """
    (bits,) = struct.unpack(">Q", struct.pack(">d", value + 0.0))  # + 0.0: minus zero is zero
    return f"{bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN:016x}".rstrip("0")
