"""The cost model learns, follows and does not forget what it is not shown."""

import random

import pytest

from penstock.models.cost import CostModel


def took_ms(rows: int, length: int, slow: float = 1.0) -> float:
    return slow * (1.5 + 0.04 * rows * length + 2e-5 * rows * length * length)


SHAPES = [(1, 16), (1, 64), (4, 64), (2, 128), (1, 256), (8, 32)]


def test_it_learns_the_cost_of_shapes_not_seen() -> None:
    rng = random.Random(1)
    cost = CostModel()
    for _ in range(400):
        rows, length = rng.choice(SHAPES)
        cost.observe(rows, length, took_ms(rows, length) * rng.uniform(0.9, 1.1))
    for rows, length in [(3, 96), (1, 192), (6, 48)]:
        assert cost.predict_ms(rows, length) == pytest.approx(took_ms(rows, length), rel=0.15)


def test_it_follows_a_machine_that_becomes_slow() -> None:
    cost = CostModel()
    for slow in (1.0, 3.0):
        for _ in range(60):
            for rows, length in SHAPES:
                cost.observe(rows, length, took_ms(rows, length, slow))
        assert cost.predict_ms(2, 160) == pytest.approx(took_ms(2, 160, slow), rel=0.15)


def test_one_shape_for_ever_and_a_pause_of_an_hour_do_not_derail_it() -> None:
    cost = CostModel()
    for _ in range(30):
        for rows, length in SHAPES:
            cost.observe(rows, length, took_ms(rows, length))
    for number in range(2000):
        cost.observe(2, 128, 3.6e6 if number == 1500 else took_ms(2, 128))
    assert cost.predict_ms(2, 128) == pytest.approx(took_ms(2, 128), rel=0.1)
    assert 0.3 * took_ms(1, 16) < cost.predict_ms(1, 16) < 3 * took_ms(1, 16)
