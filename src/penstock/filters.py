"""One small filter language over the metadata of documents, as JSON in and as a frozen tree inside.

    {"city": "Graz"}                                     equal (short for {"city": {"eq": "Graz"}})
    {"year": {"gte": 2020, "lt": 2024}, "open": true}    several conditions: all of them
    {"tag": {"in": ["fire", "water"]}}                   one of these
    {"or": [{"floor": {"exists": false}}, {"not": {"floor": 3}}]}

Meaning, the same in every engine:
- A field is a top-level key of the metadata. A field that is a list matches when one of its elements does; objects
  and lists inside lists match nothing but `exists`.
- Numbers compare as 64-bit floats (3 equals 3.0), strings by code point; true is not 1. `gt gte lt lte` take a number
  or a string and match only values of that kind. `ne` is exactly `not eq`: it also matches where the field is missing.
- `exists` is about the key: a null value exists.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from penstock.errors import InvalidInput
from penstock.types import JSON

MAX_DEPTH = 8
MAX_CONDITIONS = 64
MAX_VALUES = 256
MAX_TEXT_CHARS = 1_000

Scalar: TypeAlias = str | float | bool | None
"""A comparable value. Every number is a float: see the module's docstring."""


class Op(StrEnum):
    EQ = "eq"
    NE = "ne"
    IN = "in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class Condition:
    """`value` is a tuple of scalars for `in`, a bool for `exists`, a number or string for ranges, else a scalar."""

    field: str
    op: Op
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    items: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: "Filter"


Filter: TypeAlias = Condition | And | Or | Not

OPERATORS = frozenset(op.value for op in Op)
ORDER: Mapping[Op, Callable[[Any, Any], bool]] = {
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


def parse_filter(source: JSON) -> Filter | None:
    """The tree that a JSON filter says; None for null and for `{}`, which let everything through.

    Raises `InvalidInput` that names the path of what is wrong, or the limit that was passed.
    """
    if source is None or source == {}:
        return None
    return _Parser().parse(source, "filter", 1)


def matches(where: Filter | None, metadata: Mapping[str, JSON]) -> bool:
    """Whether metadata passes the filter: the reference that every engine's translation is tested against."""
    match where:
        case None:
            return True
        case And(items):
            return all(matches(item, metadata) for item in items)
        case Or(items):
            return any(matches(item, metadata) for item in items)
        case Not(item):
            return not matches(item, metadata)
        case Condition():
            return _holds(where, metadata)


def scalars(value: JSON) -> Iterator[Scalar]:
    """The comparable values of a field: itself, or a list's elements; nothing for objects and nested lists."""
    for item in value if isinstance(value, list | tuple) else (value,):
        if item is None or isinstance(item, str | bool):
            yield item
        elif isinstance(item, int | float):
            yield _number(item)


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of a float
        return math.inf if value > 0 else -math.inf


def _holds(condition: Condition, metadata: Mapping[str, JSON]) -> bool:
    name, op, wanted = condition.field, condition.op, condition.value
    if op is Op.EXISTS:
        return (name in metadata) is wanted
    values = list(scalars(metadata[name])) if name in metadata else []
    if op is Op.NE:
        return not any(_equal(value, wanted) for value in values)
    if isinstance(wanted, tuple):
        return any(_equal(value, option) for value in values for option in wanted)
    if op is Op.EQ:
        return any(_equal(value, wanted) for value in values)
    return any(type(value) is type(wanted) and ORDER[op](value, wanted) for value in values)


def _equal(left: Scalar, right: Scalar | tuple[Scalar, ...]) -> bool:
    return type(left) is type(right) and left == right


class _Parser:
    """Holds the count of conditions, which is bounded over the whole filter."""

    def __init__(self) -> None:
        self._conditions = 0

    def parse(self, source: JSON, path: str, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"{path}: the filter is nested deeper than {MAX_DEPTH} levels; flatten it")
        if not isinstance(source, dict) or not source:
            raise InvalidInput(f'{path}: expected an object such as {{"field": value}}, not {_show(source)}')
        items = [item for key, value in source.items() for item in self._entry(key, value, path, depth)]
        return items[0] if len(items) == 1 else And(tuple(items))

    def _entry(self, key: str, value: JSON, path: str, depth: int) -> Iterator[Filter]:
        here = f"{path}.{key[:50]}"
        if key == "not":
            yield Not(self.parse(value, here, depth + 1))
        elif key in {"and", "or"}:
            if not isinstance(value, list) or not value:
                raise InvalidInput(f"{here}: expected a list of one or more filters, not {_show(value)}")
            self._count(len(value), here)
            items = tuple(self.parse(item, f"{here}[{i}]", depth + 1) for i, item in enumerate(value))
            yield And(items) if key == "and" else Or(items)
        else:
            yield from self._field(key, value, here)

    def _field(self, name: str, value: JSON, path: str) -> Iterator[Filter]:
        if not name or len(name) > MAX_TEXT_CHARS or not _encodable(name):
            raise InvalidInput(f"{path}: a field's name has 1 to {MAX_TEXT_CHARS} valid Unicode characters")
        operators = value if isinstance(value, dict) else {"eq": value}
        if not operators:
            raise InvalidInput(f"{path}: expected a value or operators ({', '.join(Op)}), not {{}}")
        for key, operand in operators.items():
            if key not in OPERATORS:
                raise InvalidInput(f"{path}.{key[:50]}: unknown operator; use one of {', '.join(Op)}")
            self._count(1, path)
            yield Condition(name, Op(key), _operand(Op(key), operand, f"{path}.{key}"))

    def _count(self, more: int, path: str) -> None:
        self._conditions += more
        if self._conditions > MAX_CONDITIONS:
            raise InvalidInput(
                f"{path}: the filter has more than {MAX_CONDITIONS} conditions; use `in` for many values"
            )


def _operand(op: Op, value: JSON, path: str) -> Scalar | tuple[Scalar, ...]:
    if op is Op.EXISTS:
        if not isinstance(value, bool):
            raise InvalidInput(f"{path}: expected true or false, not {_show(value)}")
        return value
    if op is Op.IN:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise InvalidInput(f"{path}: expected a list of 1 to {MAX_VALUES} values, not {_show(value)}")
        return tuple(_scalar(item, f"{path}[{i}]") for i, item in enumerate(value))
    scalar = _scalar(value, path)
    if op in ORDER and (scalar is None or isinstance(scalar, bool)):
        raise InvalidInput(f"{path}: expected a number or a string to compare with, not {_show(value)}")
    return scalar


def _scalar(value: JSON, path: str) -> Scalar:
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS or not _encodable(value):
            raise InvalidInput(f"{path}: a string has at most {MAX_TEXT_CHARS} valid Unicode characters")
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(number := _number(value)):
        return number
    raise InvalidInput(f"{path}: expected a string, a finite number, true, false or null, not {_show(value)}")


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _show(value: JSON) -> str:
    return repr(value)[:60]
