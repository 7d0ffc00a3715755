import pytest

from penstock.errors import InvalidInput
from penstock.filters import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES, And, Condition, Not, Op, Or, matches, parse_filter

DOC = {"city": "Graz", "year": 2021, "tags": ["fire", 3, None], "open": True, "note": None, "size": {"w": 1}}


def test_shorthand_and_operators_parse_to_one_tree() -> None:
    assert parse_filter({"city": "Graz"}) == Condition("city", Op.EQ, "Graz")
    assert parse_filter({"year": {"gte": 2020, "lt": 2024}, "not": {"city": "Linz"}}) == And(
        (Condition("year", Op.GTE, 2020.0), Condition("year", Op.LT, 2024.0), Not(Condition("city", Op.EQ, "Linz")))
    )
    assert parse_filter({"or": [{"a": None}, {"b": {"in": [1, "x"]}}]}) == Or(
        (Condition("a", Op.EQ, None), Condition("b", Op.IN, (1.0, "x")))
    )


@pytest.mark.parametrize("source", [None, {}])
def test_nothing_lets_everything_through(source: object) -> None:
    assert parse_filter(source) is None
    assert matches(None, DOC)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"city": "Graz"}, True),
        ({"city": "graz"}, False),
        ({"city": {"ne": "Linz"}}, True),
        ({"gone": {"ne": 1}}, True),
        ({"gone": 1}, False),
        ({"gone": None}, False),
        ({"note": None}, True),
        ({"note": {"exists": True}}, True),
        ({"gone": {"exists": False}}, True),
        ({"size": {"exists": True}}, True),
        ({"size": {"gt": 0}}, False),
        ({"year": 2021.0}, True),
        ({"year": "2021"}, False),
        ({"year": {"gt": 2021}}, False),
        ({"year": {"gte": 2021, "lte": 2021}}, True),
        ({"year": {"gt": "2"}}, False),
        ({"city": {"gt": "G", "lt": "H"}}, True),
        ({"open": True}, True),
        ({"open": 1}, False),
        ({"tags": "fire"}, True),
        ({"tags": {"in": ["water", 3]}}, True),
        ({"tags": {"ne": "fire"}}, False),
        ({"tags": {"gt": 2}}, True),
        ({"tags": None}, True),
        ({"and": [{"city": "Graz"}, {"open": False}]}, False),
        ({"or": [{"city": "Linz"}, {"open": True}]}, True),
        ({"not": {"or": [{"city": "Linz"}, {"open": True}]}}, False),
    ],
)
def test_matches(source: object, expected: bool) -> None:
    assert matches(parse_filter(source), DOC) is expected


def nested(depth: int) -> object:
    return {"a": 1} if depth == 1 else {"not": nested(depth - 1)}


def test_limits_are_inclusive() -> None:
    assert parse_filter(nested(MAX_DEPTH)) is not None
    assert parse_filter({"a": {"in": list(range(MAX_VALUES))}}) is not None
    assert parse_filter({f"f{i}": i for i in range(MAX_CONDITIONS)}) is not None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ([], "filter:"),
        ("city", "filter:"),
        ({"a": {}}, "filter.a:"),
        ({"a": [1]}, "filter.a.eq:"),
        ({"a": {"near": 1}}, "filter.a.near:"),
        ({"a": {"exists": 1}}, "filter.a.exists:"),
        ({"a": {"in": []}}, "filter.a.in:"),
        ({"a": {"in": "xy"}}, "filter.a.in:"),
        ({"a": {"in": [1, {}]}}, "filter.a.in[1]:"),
        ({"a": {"gt": None}}, "filter.a.gt:"),
        ({"a": {"lt": True}}, "filter.a.lt:"),
        ({"a": float("nan")}, "filter.a.eq:"),
        ({"a": 10**400}, "filter.a.eq:"),
        ({"a": "\ud800"}, "filter.a.eq:"),
        ({"a": "x" * 1001}, "filter.a.eq:"),
        ({"": 1}, "filter.:"),
        ({"and": {}}, "filter.and:"),
        ({"or": [{"a": 1}, {}]}, "filter.or[1]:"),
        ({"not": None}, "filter.not:"),
        ({"a": {"in": list(range(MAX_VALUES + 1))}}, "filter.a.in:"),
        ({f"f{i}": i for i in range(MAX_CONDITIONS + 1)}, f"filter.f{MAX_CONDITIONS}:"),
        (nested(MAX_DEPTH + 1), "filter" + ".not" * MAX_DEPTH + ":"),
    ],
)
def test_errors_name_the_place(source: object, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_filter(source)
    assert caught.value.message.startswith(path)
