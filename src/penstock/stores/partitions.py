"""Vectors in partitions, and a sketch of each: how the nearest are found without a look at all of them.

A question reads the partitions whose centres are nearest to it. Of their rows it compares the sketches (the vector's
first principal components, in which most of a cosine is), and works out the cosines of the best of those. How many
partitions and how long a sketch it takes depends on the vectors, so it is measured when they are partitioned: some of
them are asked for their neighbours, beside exact search.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.stores.base import Vector

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

PARTITION_ROWS = 256
PARTITIONED_ROWS = 8_192
"""Fewer are read whole."""
TRAINING_ROWS = 32_768
TRAINING_ROUNDS = 5
ASSIGN_ROWS = 8_192
SKETCHES = (64, 96, 128, 192, 256)
SHORTLIST = 4
"""So many times as many rows as are wanted are the best by their sketches."""
ASKED = 48
NEIGHBOURS = 100
FOUND = 0.98
"""The share of these neighbours that is to be found: the nearest ones of them, which matter more, are found oftener."""
AXES_ROUNDS = 4
MAX_BLOCK_ROWS = 64
BLOCKS = 8
"""So many times as many blocks as rows that are wanted: seldom are two of the best in one."""


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """`vectors` stand by partition: that of `centres[i]` from `ends[i]` on. `axes` are those of the sketches, or None
    where whole vectors serve as well; `share` is the share of the partitions that a question reads."""

    vectors: Vector
    centres: Vector
    ends: NDArray[np.int64]
    axes: Vector | None
    sketches: Vector
    share: float

    @classmethod
    def of(cls, vectors: Vector) -> tuple[NDArray[np.int64], Self]:
        """The order in which the rows stand, and the partitions. CPU-bound."""
        rng = np.random.default_rng(len(vectors))
        sample = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), TRAINING_ROWS), replace=False))]
        centres = _centres(sample, len(vectors) // PARTITION_ROWS, rng)
        owners = _owners(vectors, centres)
        order = np.argsort(owners, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(centres)))])
        vectors = vectors[order]
        asked = np.sort(rng.choice(len(vectors), ASKED, replace=False))
        near = _neighbours(vectors, asked)
        axes = _axes(sample, vectors, asked, near, rng)
        sketches = vectors if axes is None else vectors @ axes.T
        return order, cls(vectors, centres, ends, axes, sketches, _share(centres, ends, vectors[asked], near))

    def nearest(
        self, vector: Vector, wanted: int, allowed: Mask | None = None, *, effort: float = 1.0
    ) -> tuple[Rows, Floats]:
        """At least `wanted` of the nearest rows that are allowed, if as many were read, and their cosines.

        `effort` times as many partitions as usual are read.
        """
        count = math.ceil(min(self.share * effort, 1.0) * len(self.centres))
        nearest = np.argpartition(np.vecdot(self.centres, -vector), count - 1)[:count]
        starts, lengths = self.ends[nearest], np.diff(self.ends)[nearest]
        places = np.concatenate([[0], np.cumsum(lengths)])
        short = vector if self.axes is None else np.vecdot(self.axes, vector)
        scores = np.empty(places[-1], np.float32)
        parts = list(zip(starts.tolist(), (starts + lengths).tolist(), places.tolist(), strict=False))
        for start, end, place in parts:
            np.vecdot(self.sketches[start:end], short, out=scores[place : place + end - start])
        if allowed is not None:
            scores[~np.concatenate([allowed[start:end] for start, end, _ in parts])] = -np.inf
        best = best_of(scores, wanted if self.axes is None else SHORTLIST * max(wanted, NEIGHBOURS))
        which = np.searchsorted(places, best, side="right") - 1
        rows = (best - places[which] + starts[which]).astype(np.int32)
        return rows, scores[best] if self.axes is None else np.vecdot(self.vectors[rows], vector)


def best_of(scores: Floats, wanted: int, above: float = -np.inf) -> NDArray[np.int64]:
    """Where the `wanted` best scores are, and perhaps some more: all that are not below the blocks' best ones' least.

    Only scores above `above` count.
    """
    rows = min(MAX_BLOCK_ROWS, len(scores) // (BLOCKS * max(wanted, 1)))
    blocks = len(scores) // max(rows, 1)
    if rows > 1:
        best = scores[: rows * blocks].reshape(rows, blocks).max(axis=0)
        least = np.partition(best, blocks - wanted)[blocks - wanted]
        if least > above:
            return np.flatnonzero(scores >= least)
    return np.flatnonzero(scores > above)


def _centres(sample: Vector, count: int, rng: np.random.Generator) -> Vector:
    """Some rounds of spherical k-means (Dhillon and Modha 2001)."""
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(TRAINING_ROUNDS):
        owners = _owners(sample, centres)
        order = np.argsort(owners, kind="stable")
        firsts = np.searchsorted(owners[order], np.arange(count))
        filled = np.bincount(owners, minlength=count) > 0
        sums = np.add.reduceat(sample[order], np.minimum(firsts, len(sample) - 1))
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        centres = np.where(filled[:, None], sums, centres).astype(np.float32)
    return centres


def _owners(vectors: Vector, centres: Vector) -> NDArray[np.int64]:
    """The nearest centre of each vector."""
    parts = [vectors[start : start + ASSIGN_ROWS] @ centres.T for start in range(0, len(vectors), ASSIGN_ROWS)]
    return np.concatenate([part.argmax(axis=1) for part in parts])


def _neighbours(vectors: Vector, asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows nearest to each of those asked, but for itself."""
    cosines = vectors[asked] @ vectors.T
    cosines[np.arange(len(asked)), asked] = -np.inf
    return np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _axes(
    sample: Vector, vectors: Vector, asked: NDArray[np.int64], near: NDArray[np.int64], rng: np.random.Generator
) -> Vector | None:
    """The fewest axes by which the neighbours are on the shortlist; None when it takes half of the dimensions or more.

    Subspace iteration for the principal components: they need not be exact.
    """
    lengths = [length for length in SKETCHES if 2 * length <= vectors.shape[1]]
    if not lengths:
        return None
    spread = sample.T @ sample
    axes = rng.normal(size=(len(spread), lengths[-1])).astype(np.float32)
    for _ in range(AXES_ROUNDS):
        axes, _ = np.linalg.qr(spread @ axes)
    _, turn = np.linalg.eigh(axes.T @ spread @ axes)
    axes = np.ascontiguousarray((axes @ turn[:, ::-1]).T)
    for length in lengths:
        scores = vectors[asked] @ axes[:length].T @ (vectors @ axes[:length].T).T
        least = -np.partition(-scores, SHORTLIST * NEIGHBOURS, axis=1)[:, SHORTLIST * NEIGHBOURS]
        if (np.take_along_axis(scores, near, axis=1) >= least[:, None]).mean() >= FOUND:
            return np.ascontiguousarray(axes[:length])
    return None


def _share(centres: Vector, ends: NDArray[np.int64], asked: Vector, near: NDArray[np.int64]) -> float:
    """The least share of the partitions in which enough of the neighbours are."""
    ranks = np.argsort(np.argsort(-(asked @ centres.T), axis=1), axis=1)
    found = np.take_along_axis(ranks, np.searchsorted(ends, near, side="right") - 1, axis=1)
    return float(np.quantile(found, FOUND) + 1) / len(centres)
