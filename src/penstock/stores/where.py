"""Filters for engines that can only tell whether a row has one of some keys: nearly every engine can.

A row's keys are 64-bit numbers, hashes of its facets (see `facets`), of its version and of its document, and a few
drawn by lot. Numbers need no quoting, have one size, and every engine has an index for them. That two facets among ten
million have one hash is a matter of a few in a million.

Ranges of strings are the one condition that keys cannot tell. `narrow` widens such a condition to "has the field", and
says so: whoever searches then looks at the metadata of what was found with `filters.matches`.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from penstock.filters import ORDER, And, Condition, Filter, Not, Op, Or
from penstock.stores.base import IndexRow
from penstock.stores.facets import facet, facets, in_range, presence

MAX_LOTS = 32


@dataclass(frozen=True, slots=True)
class HasAny:
    """The row has one of these keys, at least. None of them: no row passes."""

    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class IsOneOf:
    """The row is one of these. Stands alone, never inside another condition."""

    chunk_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class All:
    items: tuple["Where", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    items: tuple["Where", ...]


@dataclass(frozen=True, slots=True)
class NotThat:
    item: "Where"


Where: TypeAlias = HasAny | IsOneOf | All | AnyOf | NotThat


def key(text: str) -> int:
    """A signed 64-bit number for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def keys_of(row: IndexRow) -> tuple[int, ...]:
    """All keys of a row, each once."""
    lot = key(f"l:{row.chunk_id}")
    lots = (f"l{n}" for n in range(1, MAX_LOTS) if lot % (1 << n) == 0)
    own = (f"v:{row.version_id}", f"d:{row.document_id}")
    return tuple({key(text) for text in (*facets(row.metadata), *own, *lots)})


def of_versions(version_ids: Sequence[str], document_ids: Sequence[str]) -> HasAny:
    """The rows of these versions and of these documents."""
    return HasAny((*(key(f"v:{one}") for one in version_ids), *(key(f"d:{one}") for one in document_ids)))


def lot(halvings: int) -> HasAny | None:
    """A random share of the rows, the same each time: all of them, halved so many times."""
    return HasAny((key(f"l{min(halvings, MAX_LOTS - 1)}"),)) if halvings > 0 else None


def narrow(where: Filter) -> tuple[Where, bool]:
    """The keys' condition that lets through all that the filter does, and whether it lets through nothing else."""
    return _translate(where, wide=True), not _has_text_range(where)


def holds(where: Where | None, keys: Collection[int], chunk_id: str) -> bool:
    """Whether a row passes: what engines' translations must mean."""
    match where:
        case None:
            return True
        case HasAny(wanted):
            return any(one in keys for one in wanted)
        case IsOneOf(chunk_ids):
            return chunk_id in chunk_ids
        case All(items):
            return all(holds(item, keys, chunk_id) for item in items)
        case AnyOf(items):
            return any(holds(item, keys, chunk_id) for item in items)
        case NotThat(item):
            return not holds(item, keys, chunk_id)


def _translate(where: Filter, *, wide: bool) -> Where:
    match where:
        case And(items):
            return All(tuple(_translate(item, wide=wide) for item in items))
        case Or(items):
            return AnyOf(tuple(_translate(item, wide=wide) for item in items))
        case Not(item):
            return NotThat(_translate(item, wide=not wide))
        case Condition(field, Op.EXISTS, value):
            there = _has([presence(field)])
            return there if value else NotThat(there)
        case Condition(field, op, value):
            if isinstance(value, tuple):
                return _has([facet(field, option) for option in value])
            if op not in ORDER:
                equal = _has([facet(field, value)])
                return equal if op is Op.EQ else NotThat(equal)
            if isinstance(value, float):
                return _has(in_range(field, op, value))
            return _has([presence(field)] if wide else [])


def _has(texts: Sequence[str]) -> HasAny:
    return HasAny(tuple(key(text) for text in texts))


def _has_text_range(where: Filter) -> bool:
    match where:
        case And(items) | Or(items):
            return any(_has_text_range(item) for item in items)
        case Not(item):
            return _has_text_range(item)
        case Condition(_, op, value):
            return op in ORDER and isinstance(value, str)
