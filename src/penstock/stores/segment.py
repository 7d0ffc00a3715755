"""Some rows of a LanceDB table in memory, made for searching: vectors in partitions, postings of terms and of facets.

What a segment holds never changes; rows that are gone are masked out by whoever holds it (`live`). All arrays are of
one number a row or a posting, so that a search is a few passes of numpy, outside of Python's lock for the most part.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.stores.base import Vector
from penstock.stores.partitions import PARTITIONED_ROWS, Floats, Mask, Partitions, Rows
from penstock.stores.postings import Postings

FEW_ALLOWED = 5_000
FILTERED_EFFORT = 1.5
"""So many times as many partitions are read where a filter leaves out many of their rows."""
SAME_AVERAGE = 1e-3
"""By so little the average length of a row may differ from what postings were weighed with, until `settle`."""


class Segment:
    """`rows` of a table with the columns `_rowid`, `chunk_id`, `terms`, `vector` and `facets`.

    `live` are those that are not gone: `living` in number, `length` terms in all.
    """

    def __init__(self, rows: pa.Table, dimensions: int, *, remember: bool = False) -> None:
        self.source = rows if remember else None
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dimensions)
        self._partitions: Partitions | None = None
        if len(rows) < PARTITIONED_ROWS:
            order, self.vectors = np.arange(len(rows)), np.ascontiguousarray(vectors)
        else:
            order, self._partitions = Partitions.of(vectors)
            self.vectors = self._partitions.vectors
        rows = rows.select(["_rowid", "chunk_id", "terms", "facets"]).take(pa.array(order))
        addresses = rows["_rowid"].to_numpy()
        self._rows_held = np.argsort(addresses)
        self._held = addresses[self._rows_held]
        self.chunk_ids = rows["chunk_id"].to_numpy()
        self.terms = Postings.of(_split(rows["terms"]))
        self.facets = Postings.of(rows["facets"].combine_chunks())
        self.live: Mask = np.ones(len(order), np.bool_)
        self.whole = True
        self.living, self.length = len(order), float(self.terms.lengths.sum())
        self._weighed: tuple[float, Floats] | None = None

    def __len__(self) -> int:
        return len(self.chunk_ids)

    def keep(self, addresses: NDArray[Any]) -> None:
        """Masks out the rows whose address is not among these, which are sorted."""
        _, found = self._meet(addresses)
        if found is None:
            return
        self._rows_held, self._held = self._rows_held[found], self._held[found]
        live = np.zeros(len(self), np.bool_)
        live[self._rows_held] = True
        self.whole = False  # for a moment, searches of other threads look at `live`
        self.live = live
        self.whole = bool(live.all())
        self.living, self.length = len(self._held), float(self.terms.lengths[live].sum())

    def cross_off(self, addresses: NDArray[Any], unknown: Mask) -> None:
        """Says of each of these addresses that is held that it is not unknown."""
        places, found = self._meet(addresses)
        unknown[places if found is None else places[found]] = False

    def _meet(self, addresses: NDArray[Any]) -> tuple[Any, Mask | None]:
        """Where among these, which are sorted, the addresses that are held are, and which of them; None for all."""
        held = self._held
        if not len(held) or not len(addresses):
            return np.zeros(len(held), np.int64), np.zeros(len(held), np.bool_)
        first, last = np.searchsorted(addresses, held[[0, -1]])
        if np.array_equal(addresses[first : last + 1], held):
            return slice(first, last + 1), None
        places = np.minimum(np.searchsorted(addresses, held), len(addresses) - 1)
        return places, addresses[places] == held

    @property
    def end(self) -> int:
        """All addresses that are held are lower."""
        return int(self._held[-1]) + 1 if len(self._held) else 0

    def alive_in_source(self) -> Mask:
        """Which rows of `source` are alive, in its order."""
        assert self.source is not None
        return np.isin(self.source["_rowid"].to_numpy(), self._held)

    def frequency(self, term: str) -> int:
        """How many living rows have a term."""
        rows = self.terms.of_word(term)
        return len(rows) if self.whole else int(self.live[rows].sum())

    def settle(self, average: float, tolerance: float = 2e-6) -> None:
        """Works out what every posting weighs while the average length of a row is this: searches then only add up."""
        if self._partitions is not None and self._shares(average, tolerance) is None:
            self._weighed = average, self.terms.weigh(average)

    def bm25(self, weights: dict[str, float], average: float) -> Floats:
        """The score of every row. `weights` are the terms' idf times how often they are asked for."""
        return self.terms.bm25(weights, average, self._shares(average, SAME_AVERAGE))

    def _shares(self, average: float, tolerance: float) -> Floats | None:
        weighed = self._weighed
        fits = weighed is not None and math.isclose(weighed[0], average, rel_tol=tolerance)
        return weighed[1] if weighed is not None and fits else None

    def cosines(self, vector: Vector, rows: Rows) -> Floats:
        """Of some rows."""
        found: Floats = np.vecdot(self.vectors[rows], vector)
        return found

    def nearest(self, vector: Vector, wanted: int, allowed: Mask | None, *, filtered: bool) -> tuple[Rows, Floats]:
        """Rows worth a look, and their cosines. A filter that leaves few rows is answered exactly."""
        if self._partitions is None and allowed is None:
            return np.arange(len(self), dtype=np.int32), np.vecdot(self.vectors, vector)
        if allowed is not None and (filtered or self._partitions is None):
            rows = np.flatnonzero(allowed).astype(np.int32)
            if self._partitions is None or len(rows) <= max(FEW_ALLOWED, 2 * wanted):
                return rows, self.cosines(vector, rows)
        assert self._partitions is not None
        found = self._partitions.nearest(vector, wanted, allowed, effort=FILTERED_EFFORT if filtered else 1.0)
        if len(found[0]) < wanted:
            found = self._partitions.nearest(vector, wanted, allowed, effort=math.inf)
        return found


def _split(terms: pa.ChunkedArray) -> pa.ListArray:
    """The terms of each row; of a row without any, none."""
    texts = terms.combine_chunks()
    words = pc.split_pattern(texts, " ")
    if not pc.any(pc.equal(texts, "")).as_py():
        return words
    return pa.array([[word for word in row if word] for row in words.to_pylist()], pa.list_(pa.string()))
