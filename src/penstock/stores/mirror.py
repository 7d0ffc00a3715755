"""A LanceDB table's rows in memory: what makes questions fast while the disk stays the truth.

A row of a table has an address (fragment and offset) under which its content never changes: an update writes a new row
at a new address. So the copy is right as soon as it holds exactly the addresses that are alive, whoever wrote them, and
a look at the folder's time of change says whether they may have changed. Searches wait for a few new rows to be copied;
while many are, they go to the disk.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.filters import ORDER, And, Condition, Filter, Not, Op, Or
from penstock.stores.base import Candidate, IndexQuery, LaneHits, Vector
from penstock.stores.facets import facet, in_range, presence
from penstock.stores.partitions import Floats, Mask, Rows, best_of
from penstock.stores.segment import Segment

COLUMNS = ["chunk_id", "terms", "vector", "facets"]
FEW_ROWS = 2_000
SMALL_SEGMENTS = 8
SMALL_ROWS = 16_000
SEGMENT_ROWS = 200_000
UNSURE_S = 0.05
"""A folder that changed so lately may change again within the same tick of its file system's clock."""
SAMPLE_ROWS = 512
SAMPLE_AGE_S = 10.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the table's folder looked like: another one means that something may have been written."""

    folder: int
    changed_ns: int

    @classmethod
    def of(cls, table: Path) -> "Stamp | None":
        """None while the folder has only just changed, or is not there."""
        try:
            found = (table / "_versions").stat()
        except OSError:
            return None
        return None if time.time_ns() - found.st_mtime_ns < UNSURE_S * 1e9 else cls(found.st_ino, found.st_mtime_ns)


class Mirror:
    """Segments of rows, in no order. `sync` and `search` are blocking; one thread at a time may be in `sync`."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._segments: list[Segment] = []
        self.rows = 0
        self._average = 1.0
        self._sample: tuple[float, int, Vector] = (-math.inf, 0, np.empty((0, dimensions), np.float32))
        self._random = np.random.default_rng(0)

    def missing(self, addresses: NDArray[Any]) -> NDArray[Any]:
        """Those of the living addresses, which are sorted, that are not held yet."""
        unknown = np.ones(len(addresses), np.bool_)
        for segment in self._segments:
            segment.cross_off(addresses, unknown)
        return addresses[unknown]

    def successor(self) -> "Mirror":
        """Another one that holds the same, for now."""
        other = Mirror(self.dimensions)
        other._segments, other.rows, other._average = self._segments, self.rows, self._average
        return other

    @property
    def segments(self) -> int:
        return len(self._segments)

    @property
    def end(self) -> int:
        """All addresses that are held are lower; those of rows that are written later are not."""
        return max((segment.end for segment in self._segments), default=0)

    def sync(self, addresses: NDArray[Any] | None, fresh: pa.Table) -> None:
        """Makes these addresses all that is held. `fresh` has the rows of `missing(addresses)`.

        None: those of `fresh`, beside all that was held before.
        """
        segments = list(self._segments)
        if addresses is not None:
            for segment in segments:
                segment.keep(addresses)
            segments = [segment for segment in segments if segment.living]
        if len(fresh):
            segments += self._joined(segments, fresh)
        self._segments = segments
        self.rows = sum(segment.living for segment in segments)
        self._average = max(sum(segment.length for segment in segments) / max(self.rows, 1), 1e-9)
        self._resample()

    def _joined(self, segments: list[Segment], fresh: pa.Table) -> list[Segment]:
        """The fresh rows as segments. When small ones have become many, those that are smaller than all still smaller

        ones together are made one, so that a row is joined with others a few times in all.
        """
        if len(fresh) > FEW_ROWS:
            return [
                Segment(fresh.slice(at, SEGMENT_ROWS), self.dimensions) for at in range(0, len(fresh), SEGMENT_ROWS)
            ]
        small = sorted((one for one in segments if one.source is not None), key=len)
        parts, rows = [fresh], len(fresh)
        if len(small) >= SMALL_SEGMENTS:
            for one in small:
                if len(one) > rows:
                    break
                assert one.source is not None
                parts.append(one.source.filter(pa.array(one.alive_in_source())))
                rows += len(one)
                segments.remove(one)
        return [Segment(pa.concat_tables(parts), self.dimensions, remember=rows <= SMALL_ROWS)]

    def search(self, query: IndexQuery, terms: Sequence[str]) -> LaneHits:
        """As `IndexStore.search`. The filter must be one that `can_filter`."""
        segments, rows = self._segments, self.rows
        if not rows:
            return LaneHits()
        masks = [_mask(segment, query.filter) for segment in segments]
        firsts = np.cumsum([0, *map(len, segments)])
        dense: dict[int, float] = {}
        text: dict[int, float] = {}
        if query.vector is not None:
            filtered = query.filter is not None
            near = [
                segment.nearest(query.vector, query.k, mask, filtered=filtered)
                for segment, mask in zip(segments, masks, strict=True)
            ]
            dense = _best(near, firsts, query.k)
        if terms:
            scores = self._bm25(segments, terms, rows)
            found = [_matching(one, mask, query.k) for one, mask in zip(scores, masks, strict=True)]
            text = _best(found, firsts, query.k)
        mean, std = self._spread(query.vector)
        return LaneHits(
            candidates=_candidates(segments, firsts, query, dense, text),
            rows=rows,
            dense_mean=mean,
            dense_std=std,
            fulltext_floor=min(text.values()) if len(text) == query.k else 0.0,
        )

    def _bm25(self, segments: list[Segment], terms: Sequence[str], rows: int) -> list[Floats]:
        weights = {}
        for term, times in Counter(terms).items():
            having = sum(segment.frequency(term) for segment in segments)
            weights[term] = times * math.log(1 + (rows - having + 0.5) / (having + 0.5))
        return [segment.bm25(weights, self._average) for segment in segments] if weights else []

    def settle(self) -> None:
        """Prepares for many searches without a write in between."""
        for segment in self._segments:
            segment.settle(self._average)

    def _spread(self, vector: Vector | None) -> tuple[float, float]:
        if vector is None:
            return 0.0, 0.0
        cosines = np.vecdot(self._sample[2], vector)
        return float(cosines.mean()), float(cosines.std())

    def _resample(self) -> None:
        """Random rows for the spread of cosines: all of a small table, else others every few seconds."""
        now = time.monotonic()
        taken_at, _, sample = self._sample
        if len(sample) == SAMPLE_ROWS and now - taken_at < SAMPLE_AGE_S:
            return
        vectors = []
        for segment in self._segments:
            alive = np.flatnonzero(segment.live)
            wanted = min(len(alive), math.ceil(SAMPLE_ROWS * len(alive) / max(self.rows, 1)))
            vectors.append(segment.vectors[self._random.choice(alive, wanted, replace=False)])
        whole = np.concatenate(vectors) if vectors else np.empty((0, self.dimensions), np.float32)
        self._sample = (now, self.rows, whole if self.rows <= SAMPLE_ROWS else whole[:SAMPLE_ROWS])


def can_filter(where: Filter | None) -> bool:
    """Whether facets tell what a filter means; ranges of strings are not among them."""
    match where:
        case None:
            return True
        case And(items) | Or(items):
            return all(map(can_filter, items))
        case Not(item):
            return can_filter(item)
        case Condition(_, op, value):
            return op not in ORDER or isinstance(value, float)


def _mask(segment: Segment, where: Filter | None) -> Mask | None:
    """The rows that live and pass, or None for all."""
    if where is None:
        return None if segment.whole else segment.live
    return _passing(segment, where) & segment.live


def _passing(segment: Segment, where: Filter) -> Mask:
    match where:
        case And(items):
            return reduce(np.logical_and, (_passing(segment, item) for item in items))
        case Or(items):
            return reduce(np.logical_or, (_passing(segment, item) for item in items))
        case Not(item):
            return ~_passing(segment, item)
        case Condition(field, Op.EXISTS, value):
            there = _having(segment, [presence(field)])
            return there if value else ~there
        case Condition(field, op, value):
            if isinstance(value, tuple):
                return _having(segment, [facet(field, option) for option in value])
            if op in ORDER:
                assert isinstance(value, float), "see can_filter"
                return _having(segment, in_range(field, op, value))
            equal = _having(segment, [facet(field, value)])
            return equal if op is Op.EQ else ~equal


def _having(segment: Segment, facets: Sequence[str]) -> Mask:
    mask = np.zeros(len(segment), np.bool_)
    for one in facets:
        mask[segment.facets.of_word(one)] = True
    return mask


def _matching(scores: Floats, allowed: Mask | None, k: int) -> tuple[Rows, Floats]:
    """The rows that have a term and may be among the best."""
    if allowed is not None:
        scores *= allowed
    rows = best_of(scores, k, above=0.0).astype(np.int32)
    return rows, scores[rows]


def _best(parts: Sequence[tuple[Rows, Floats]], firsts: NDArray[np.int64], k: int) -> dict[int, float]:
    """The k best of all segments, best first: row, counted through all segments → score."""
    scores = np.concatenate([part[1] for part in parts])
    rows = np.concatenate([part[0] + first for part, first in zip(parts, firsts, strict=False)])
    chosen = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else np.arange(len(scores))
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return dict(zip(rows[chosen].tolist(), scores[chosen].tolist(), strict=True))


def _candidates(
    segments: Sequence[Segment],
    firsts: NDArray[np.int64],
    query: IndexQuery,
    dense: dict[int, float],
    text: dict[int, float],
) -> tuple[Candidate, ...]:
    """One a row that either lane found; those that only full-text found get their cosines here."""
    found, cosines = len(dense), dict(dense)
    rows = np.array([*dense, *(row for row in text if row not in dense)], np.int64)
    places = np.searchsorted(firsts, rows, side="right") - 1
    chunk_ids = np.empty(len(rows), np.object_)
    for number, segment in enumerate(segments):
        ours = np.flatnonzero(places == number)
        if len(ours):
            held = rows[ours] - firsts[number]
            chunk_ids[ours] = segment.chunk_ids[held]
            rest = ours >= found
            if query.vector is not None and rest.any():
                true = segment.cosines(query.vector, held[rest].astype(np.int32)).tolist()
                cosines.update(zip(rows[ours[rest]].tolist(), true, strict=True))
    none = None if query.text is None else 0.0
    return tuple(
        Candidate(chunk_id=chunk_id, dense=cosines.get(row), fulltext=text.get(row, none))
        for row, chunk_id in zip(rows.tolist(), chunk_ids, strict=True)
    )
