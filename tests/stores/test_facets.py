import itertools
import random

import pytest

from penstock.filters import Op, matches, parse_filter
from penstock.stores.facets import facet, facets, fields, in_range, presence

NUMBERS = [
    0.0,
    -0.0,
    1,
    2,
    3,
    10,
    15,
    16,
    17,
    255,
    256,
    2021,
    0.1,
    0.5,
    1e300,
    1e-300,
    -1,
    -2,
    -2021,
    -0.1,
    2**53,
    5e-324,
]


def test_facets_of_a_row() -> None:
    assert facets({"a": "x", "b": [True, None], "c": {"d": 1}}) == sorted(
        [presence("a"), presence("b"), presence("c"), facet("a", "x"), facet("b", True), facet("b", None)]
    )
    assert fields({"a": ["x", 2, {}], "b": {}}) == {"a": ["nc$", "sx"], "b": []}


def test_usual_numbers_have_few_facets() -> None:
    assert len(facets({"year": 2021})) < 10


@pytest.mark.parametrize("op", [Op.GT, Op.GTE, Op.LT, Op.LTE])
def test_ranges_of_numbers_mean_what_filters_say(op: Op) -> None:
    rng = random.Random(3)
    numbers = [*NUMBERS, *(rng.uniform(-1000, 1000) for _ in range(40)), *(rng.randrange(-300, 300) for _ in range(40))]
    rows = [(number, set(facets({"n": number}))) for number in numbers]
    for bound, (number, row) in itertools.product(numbers, rows):
        expected = matches(parse_filter({"n": {op.value: bound}}), {"n": number})
        assert bool(row & set(in_range("n", op, float(bound)))) is expected, (number, op, bound)


def test_a_fields_name_is_not_mixed_up_with_its_values() -> None:
    assert facet("a", "b:c") != facet("a:b", "c")
    assert not set(facets({"ab": "c"})) & set(facets({"a": "bc"}))
