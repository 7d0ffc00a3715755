"""Some rows of a LanceDB table in memory, made for searching: vectors in partitions, postings of terms and of facets.

What a segment holds never changes; rows that are gone are masked out by whoever holds it (`live`). All arrays are of
one number a row or a posting, so that a search is a few passes of numpy, outside of Python's lock for the most part.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.stores.base import Vector
from penstock.stores.bm25 import K1, B

Rows = NDArray[np.int32]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

PARTITION_ROWS = 512
PARTITIONED_ROWS = 8_192
"""Smaller segments are read whole."""
TRAINING_ROWS = 32_768
TRAINING_ROUNDS = 5
ASSIGN_ROWS = 8_192
SAME_AVERAGE = 2e-6


@dataclass(frozen=True, slots=True)
class Postings:
    """The rows of each word: those of word `code` stand from `starts[code]` on, each once, with their count."""

    codes: dict[str, int]
    starts: NDArray[np.int64]
    rows: Rows
    counts: Floats
    lengths: Floats

    @classmethod
    def of(cls, words: pa.ListArray) -> Self:
        """From the words of every row. CPU-bound; most of it outside of Python's lock."""
        ends = np.asarray(words.offsets, np.int64)
        lengths = np.diff(ends)
        encoded = words.flatten().dictionary_encode()
        rows = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        pairs = np.asarray(encoded.indices, np.int64) << 32 | rows
        pairs.sort()
        firsts = np.flatnonzero(np.diff(pairs, prepend=-1))
        counts = np.diff(firsts, append=len(pairs)).astype(np.float32)
        codes = {word: code for code, word in enumerate(encoded.dictionary.to_pylist())}
        starts = np.searchsorted(pairs[firsts] >> 32, np.arange(len(codes) + 1))
        return cls(codes, starts, (pairs[firsts] & 0xFFFFFFFF).astype(np.int32), counts, lengths.astype(np.float32))

    def place(self, word: str) -> slice:
        """Where the word's postings are in `rows` and `counts`."""
        code = self.codes.get(word)
        return slice(0, 0) if code is None else slice(self.starts[code], self.starts[code + 1])

    def of_word(self, word: str) -> Rows:
        return self.rows[self.place(word)]


class Segment:
    """`rows` of a table with the columns `_rowid`, `chunk_id`, `terms`, `vector` and `facets`."""

    def __init__(self, rows: pa.Table, dimensions: int, *, remember: bool = False) -> None:
        self.source = rows if remember else None
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dimensions)
        order, self._centres, self._ends = _partition(vectors)
        self.vectors: Vector = np.ascontiguousarray(vectors[order])
        rows = rows.select(["_rowid", "chunk_id", "terms", "facets"]).take(pa.array(order))
        self.addresses = rows["_rowid"].to_numpy()
        self._by_address = np.argsort(self.addresses)
        self.chunk_ids = rows["chunk_id"].to_numpy()
        self.terms = Postings.of(_split(rows["terms"]))
        self.facets = Postings.of(rows["facets"].combine_chunks())
        self.live: Mask = np.ones(len(order), np.bool_)
        self.whole = True
        self._weighed: tuple[float, Floats] | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    def keep(self, addresses: NDArray[Any]) -> None:
        """Masks out the rows whose address is not among these, which are sorted."""
        _, found = self._places(addresses)
        live = np.empty(len(self), np.bool_)
        live[self._by_address] = found
        self.whole = False  # for a moment, searches of other threads look at `live`
        self.live = live
        self.whole = bool(live.all())

    def cross_off(self, addresses: NDArray[Any], unknown: Mask) -> None:
        """Says of each of these addresses that is held that it is not unknown."""
        places, found = self._places(addresses)
        unknown[places[found]] = False

    def _places(self, addresses: NDArray[Any]) -> tuple[NDArray[np.int64], Mask]:
        """Where among these, which are sorted, our addresses are, in their order, and which of ours are there."""
        ours = self.addresses[self._by_address]
        if not len(addresses):
            return np.zeros(len(ours), np.int64), np.zeros(len(ours), np.bool_)
        places = np.minimum(np.searchsorted(addresses, ours), len(addresses) - 1)
        return places, addresses[places] == ours

    def alive_in_source(self) -> Mask:
        """Which rows of `source` are alive, in its order."""
        assert self.source is not None
        return np.isin(self.source["_rowid"].to_numpy(), self.addresses[self.live])

    def frequency(self, term: str) -> int:
        """How many living rows have a term."""
        rows = self.terms.of_word(term)
        return len(rows) if self.whole else int(self.live[rows].sum())

    def settle(self, average: float) -> None:
        """Works out what every posting weighs while the average length of a row is this: searches then only add up."""
        if self._weighed is None or not math.isclose(self._weighed[0], average, rel_tol=SAME_AVERAGE):
            counts, norms = self.terms.counts, self._norms(average)
            self._weighed = average, counts / (counts + norms[self.terms.rows])

    def bm25(self, weights: dict[str, float], average: float) -> Floats:
        """The score of every row. `weights` are the terms' idf times how often they are asked for."""
        weighed = self._weighed
        shares = None
        if weighed is not None and math.isclose(weighed[0], average, rel_tol=SAME_AVERAGE):
            shares = weighed[1]
        norms = self._norms(average)
        scores = np.zeros(len(self), np.float32)
        for term, weight in weights.items():
            part = self.terms.place(term)
            rows = self.terms.rows[part]
            counts = self.terms.counts[part]
            share = counts / (counts + norms[rows]) if shares is None else shares[part]
            scores[rows] += share * np.float32(weight * (K1 + 1))
        return scores

    def _norms(self, average: float) -> Floats:
        norms: Floats = (K1 * (1 - B) + K1 * B / average * self.terms.lengths).astype(np.float32)
        return norms

    def cosines(self, vector: Vector, rows: Rows) -> Floats:
        """Of some rows."""
        found: Floats = np.vecdot(self.vectors[rows], vector)
        return found

    def nearest(
        self, vector: Vector, share: float, fewest: int, most: int, allowed: Mask | None
    ) -> tuple[Rows, Floats]:
        """Rows worth a look, and their cosines: those of the partitions nearest to the vector."""
        if self._centres is None:
            rows = np.arange(len(self), dtype=np.int32)
            return _only(rows, np.vecdot(self.vectors, vector), allowed)
        wanted = min(len(self._centres), most, max(fewest, round(share * len(self._centres))))
        nearest = np.argpartition(-(self._centres @ vector), wanted - 1)[:wanted]
        bounds = [(int(self._ends[one]), int(self._ends[one + 1])) for one in nearest]
        rows = np.concatenate([np.arange(start, end, dtype=np.int32) for start, end in bounds])
        cosines = np.concatenate([np.vecdot(self.vectors[start:end], vector) for start, end in bounds])
        return _only(rows, cosines, allowed)


def _only(rows: Rows, cosines: Floats, allowed: Mask | None) -> tuple[Rows, Floats]:
    if allowed is None:
        return rows, cosines
    kept = allowed[rows]
    return rows[kept], cosines[kept]


def _split(terms: pa.ChunkedArray) -> pa.ListArray:
    """The terms of each row; of a row without any, none."""
    texts = terms.combine_chunks()
    words = pc.split_pattern(texts, " ")
    if not pc.any(pc.equal(texts, "")).as_py():
        return words
    return pa.array([[word for word in row if word] for row in words.to_pylist()], pa.list_(pa.string()))


def _partition(vectors: Vector) -> tuple[NDArray[np.int64], Vector | None, NDArray[np.int64]]:
    """An order of the rows in which those of one partition stand together, the centres, and where each partition ends.

    Spherical k-means (Dhillon and Modha 2001) over a random part, some rounds of it.
    """
    if len(vectors) < PARTITIONED_ROWS:
        return np.arange(len(vectors)), None, np.zeros(1, np.int64)
    rng = np.random.default_rng(len(vectors))
    sample = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), TRAINING_ROWS), replace=False))]
    centres = sample[rng.choice(len(sample), len(vectors) // PARTITION_ROWS, replace=False)]
    for _ in range(TRAINING_ROUNDS):
        owners = _owners(sample, centres)
        order = np.argsort(owners, kind="stable")
        firsts = np.searchsorted(owners[order], np.arange(len(centres)))
        filled = np.bincount(owners, minlength=len(centres)) > 0
        sums = np.add.reduceat(sample[order], np.minimum(firsts, len(sample) - 1))
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        centres = np.where(filled[:, None], sums, centres).astype(np.float32)
    owners = _owners(vectors, centres)
    ends = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(centres)))])
    return np.argsort(owners, kind="stable"), centres, ends


def _owners(vectors: Vector, centres: Vector) -> NDArray[np.int64]:
    """The nearest centre of each vector."""
    parts = [vectors[start : start + ASSIGN_ROWS] @ centres.T for start in range(0, len(vectors), ASSIGN_ROWS)]
    return np.concatenate([part.argmax(axis=1) for part in parts])
