"""One lane of the batcher: waiting rows, sorted by length, taken so that nobody is passed over for ever."""

import asyncio
import itertools
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.models.base import Item, Lane
from penstock.models.shapes import padded_length, whole_rows


@dataclass(slots=True, eq=False)
class Call:
    """One caller's rows on their way. `result` gets a row as its batch ends; `done` is set with the last one.

    `gone`: nobody waits for it any more, or it failed; set under the batcher's lock.
    """

    lane: Lane
    result: NDArray[np.float32]
    left: int
    done: asyncio.Future[None]
    gone: bool = False


@dataclass(slots=True, eq=False)
class Row:
    """One text's tokens (or an image's pixels) that count as `tokens`, and where its vector goes."""

    item: Item
    tokens: int
    call: Call
    place: int
    queued_at: float
    order: int = 0
    waiting: bool = True

    @property
    def key(self) -> tuple[int, int]:
        return self.tokens, self.order


class Limits(Protocol):
    """What a batch may grow to. Lengths are padded ones."""

    def fits(self, rows: int, length: int) -> bool:
        """Whether a batch of that shape is small enough."""

    def saves(self, batch: tuple[int, int], row: int) -> bool:
        """Whether a row of length `row` had better join a batch of (rows, length) than run by itself."""


class WaitingRows:
    """The rows of a lane that wait. The caller holds the batcher's lock around every call.

    A batch is built around the row that waits longest, from the rows whose lengths are nearest to its own: little
    padding, and nobody waits longer than the rows ahead of them take.
    """

    def __init__(self, *, longest: int) -> None:
        self._longest = longest
        self._sorted: list[tuple[tuple[int, int], Row]] = []
        self._arrived: deque[Row] = deque()
        self._orders = itertools.count()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._sorted)

    def push(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.order = next(self._orders)
            insort(self._sorted, (row.key, row))
            self._arrived.append(row)
            self.tokens += row.tokens

    def take(self, limits: Limits) -> Sequence[Row]:
        """The next batch; one row even where the limits refuse it. None waiting: empty."""
        while self._arrived and not self._arrived[0].waiting:
            self._arrived.popleft()
        if not self._arrived:
            return ()
        first = bisect_left(self._sorted, self._arrived[0].key, key=lambda entry: entry[0])
        low, high = self._grow(first, limits)
        count = whole_rows(high - low)
        low = max(low, min(first, high - count))
        return self._cut(low, low + count)

    def give_back(self, rows: Iterable[Row]) -> None:
        """Take in again, before all others, what was taken and did not run; but for the rows of calls that are gone."""
        self._arrived = deque(row for row in self._arrived if row.waiting)
        for row in sorted(rows, key=lambda row: -row.order):
            if row.call.gone:
                continue
            row.waiting = True
            insort(self._sorted, (row.key, row))
            self._arrived.appendleft(row)
            self.tokens += row.tokens

    def drop(self, call: Call) -> None:
        """Take out what a caller who is gone, or who failed, still has waiting."""
        call.gone = True
        gone = [row for row in self._arrived if row.call is call and row.waiting]
        for row in gone:
            place = bisect_left(self._sorted, row.key, key=lambda entry: entry[0])
            self._cut(place, place + 1)
        self._arrived = deque(row for row in self._arrived if row.waiting)

    def _grow(self, first: int, limits: Limits) -> tuple[int, int]:
        """The widest run of neighbours [low, high) around `first` within the limits, nearest lengths first."""
        low, high = first, first + 1
        while True:
            up = self._joins(low, high, high, limits)
            down = self._joins(low, high, low - 1, limits)
            if up and (
                not down or self._tokens(high) - self._tokens(first) <= self._tokens(first) - self._tokens(low - 1)
            ):
                high += 1
            elif down:
                low -= 1
            else:
                return low, high

    def _joins(self, low: int, high: int, place: int, limits: Limits) -> bool:
        if not 0 <= place < len(self._sorted):
            return False
        row, length = self._padded(place), self._padded(high - 1)
        return limits.fits(high - low + 1, max(row, length)) and limits.saves((high - low, length), row)

    def _tokens(self, place: int) -> int:
        return self._sorted[place][0][0]

    def _padded(self, place: int) -> int:
        return padded_length(self._tokens(place), longest=self._longest)

    def _cut(self, low: int, high: int) -> Sequence[Row]:
        rows = [row for _, row in self._sorted[low:high]]
        del self._sorted[low:high]
        for row in rows:
            row.waiting = False
            self.tokens -= row.tokens
        return rows
