"""Filters as SQL over the two columns that LanceDB keeps of a row's metadata.

`facets` is a list of strings that an index answers (see `facets`): equality, existence, and ranges of numbers. `fields`
is JSON with the text of every value: ranges of strings, read row by row among those that have the field. Neither column
is ever null, so that `NOT` means the opposite.
"""

import json
from collections.abc import Sequence

from penstock.filters import And, Condition, Filter, Not, Op, Or, Scalar
from penstock.stores.facets import encode, facet, in_range, presence

_JSONPATH_ORDER = {Op.GT: ">", Op.GTE: ">=", Op.LT: "<", Op.LTE: "<="}


def to_sql(where: Filter) -> str:
    """The WHERE clause that lets through exactly what `filters.matches` does."""
    match where:
        case And(items):
            return "(" + " AND ".join(map(to_sql, items)) + ")"
        case Or(items):
            return "(" + " OR ".join(map(to_sql, items)) + ")"
        case Not(item):
            return f"(NOT {to_sql(item)})"
        case Condition(field, Op.EXISTS, value):
            clause = _has([presence(field)])
            return clause if value else f"(NOT {clause})"
        case Condition(field, op, value):
            return _compare(field, op, value)


def any_of(column: str, values: Sequence[str]) -> str:
    """`column IN (…)`."""
    return f"{column} IN ({', '.join(map(_quote, values))})"


def _compare(field: str, op: Op, value: Scalar | tuple[Scalar, ...]) -> str:
    if isinstance(value, tuple):
        return _has([facet(field, option) for option in value])
    if op in _JSONPATH_ORDER:
        return _has(in_range(field, op, value)) if isinstance(value, float) else _text_range(field, op, encode(value))
    equal = _has([facet(field, value)])
    return equal if op is Op.EQ else f"(NOT {equal})"


def _has(facets: list[str]) -> str:
    return f"array_has_any(facets, [{', '.join(map(_quote, facets))}])" if facets else "false"


def _text_range(field: str, op: Op, bound: str) -> str:
    """Values of another kind start with another letter: the kind's first and last text bound them out."""
    kind, after = bound[0], chr(ord(bound[0]) + 1)
    condition = f"@ {_JSONPATH_ORDER[op]} {_json(bound)} && @ >= {_json(kind)} && @ < {_json(after)}"
    return f"({_has([presence(field)])} AND json_exists(fields, {_quote(f'$.{_json(field)}[*]?({condition})')}))"


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
