"""Finding the nearest of many vectors: enough of them, whatever the vectors are like."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.stores.base import Vector
from penstock.stores.partitions import Partitions, best_of

ROWS = 10_000


def unit(vectors: NDArray[np.floating[Any]]) -> Vector:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def clustered(dimensions: int, noise: float) -> Vector:
    """Around centres, along axes of which some carry more than others, as with embeddings."""
    rng = np.random.default_rng(3)
    scales = (1 / np.sqrt(np.arange(1, dimensions + 1))).astype(np.float32)
    centres = rng.normal(size=(50, dimensions))[rng.integers(50, size=ROWS)]
    return unit((centres + noise * rng.normal(size=(ROWS, dimensions))) * scales)


@pytest.mark.parametrize(
    "vectors",
    [
        clustered(384, 0.5),
        clustered(384, 2.0),
        clustered(16, 1.0),
        unit(np.random.default_rng(1).normal(size=(ROWS, 24))),
    ],
    ids=["clustered", "weakly", "short", "uniform"],
)
def test_enough_neighbours_are_found_whatever_the_vectors_are_like(vectors: Vector) -> None:
    order, partitions = Partitions.of(vectors)
    assert sorted(order.tolist()) == list(range(ROWS))
    assert np.array_equal(partitions.vectors, vectors[order])
    found = 0
    questions = unit(vectors[::200] + np.random.default_rng(5).normal(size=(50, vectors.shape[1])) / 40)
    for question in questions:
        rows, cosines = partitions.nearest(question, 10)
        assert cosines == pytest.approx(vectors[order][rows] @ question, abs=1e-5)
        exact = np.argpartition(-(vectors @ question), 10)[:10]
        found += len(set(order[rows[np.argsort(-cosines)[:10]]].tolist()) & set(exact.tolist()))
    assert found >= 0.97 * 10 * len(questions)


def test_only_rows_that_are_allowed_are_found() -> None:
    vectors = clustered(384, 1.0)
    _, partitions = Partitions.of(vectors)
    allowed = np.zeros(ROWS, np.bool_)
    allowed[7::500] = True
    rows, _ = partitions.nearest(vectors[0], 100, allowed, effort=np.inf)
    assert sorted(rows.tolist()) == list(range(7, ROWS, 500))


@pytest.mark.parametrize("size", [0, 1, 90, 5_000, 100_001])
@pytest.mark.parametrize("wanted", [1, 10, 400])
def test_the_best_are_among_those_that_are_taken_for_the_best(size: int, wanted: int) -> None:
    scores = np.random.default_rng(size).normal(size=size).astype(np.float32)
    best = set(best_of(scores, wanted).tolist())
    assert best >= set(np.argsort(-scores)[:wanted].tolist())
    assert size < 100_000 or len(best) < 2 * wanted + 100
    scores[scores < 2.5] = 0
    assert set(best_of(scores, wanted, above=0.0).tolist()) >= set(
        np.argsort(-scores)[: min(wanted, (scores > 0).sum())]
    )
    assert (scores[best_of(scores, wanted, above=0.0)] > 0).all()
