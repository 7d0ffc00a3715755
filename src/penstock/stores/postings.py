"""The rows of each word, in arrays: BM25 of some words over all rows in a few passes of numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.stores.bm25 import K1, B
from penstock.stores.partitions import Floats, Rows


@dataclass(frozen=True, slots=True, eq=False)
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

    def weigh(self, average: float) -> Floats:
        """What every posting counts for in BM25 while the average length of a row is this."""
        return self.counts / (self.counts + self._norms(average)[self.rows])

    def bm25(self, words: Mapping[str, float], average: float, weighed: Floats | None = None) -> Floats:
        """The score of every row. `words` are the terms' idf times how often they are asked for; `weighed` is what

        `weigh` said, else it is worked out for these words alone.
        """
        norms = self._norms(average) if weighed is None else None
        scores = np.zeros(len(self.lengths), np.float32)
        for word, weight in words.items():
            place = self.place(word)
            rows = self.rows[place]
            if weighed is not None:
                shares = weighed[place]
            else:
                assert norms is not None
                counts = self.counts[place]
                shares = counts / (counts + norms[rows])
            np.add.at(scores, rows, shares * np.float32(weight * (K1 + 1)))  # twice as fast as +=
        return scores

    def _norms(self, average: float) -> Floats:
        norms: Floats = (K1 * (1 - B) + K1 * B / average * self.lengths).astype(np.float32)
        return norms
