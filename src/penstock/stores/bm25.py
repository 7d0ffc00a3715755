"""Okapi BM25 over postings in memory: the reference for what full-text scores are.

score(q, d) = Σ_t idf(t) · tf · (k1 + 1) / (tf + k1 · (1 - b + b · |d| / avg|d|)),
idf(t) = ln(1 + (N - df + ½) / (df + ½)),
k1 = 1.2 and b = 0.75 as in Lucene and Lance (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework").
A term that the query has twice counts twice.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

K1 = 1.2
B = 0.75


class Postings:
    """Terms of documents by key. Adding a key that is there replaces it."""

    def __init__(self) -> None:
        self._by_term: dict[str, dict[str, int]] = defaultdict(dict)
        self._documents: dict[str, Counter[str]] = {}
        self._total_terms = 0

    def add(self, key: str, terms: Sequence[str]) -> None:
        self.remove(key)
        counts = Counter(terms)
        self._documents[key] = counts
        self._total_terms += counts.total()
        for term, count in counts.items():
            self._by_term[term][key] = count

    def remove(self, key: str) -> None:
        counts = self._documents.pop(key, None)
        if counts is None:
            return
        self._total_terms -= counts.total()
        for term in counts:
            del self._by_term[term][key]
            if not self._by_term[term]:
                del self._by_term[term]

    def scores(self, terms: Sequence[str]) -> dict[str, float]:
        """The BM25 score of every document that has one of the terms."""
        scores: dict[str, float] = defaultdict(float)
        average = self._total_terms / max(len(self._documents), 1)
        for term in terms:
            postings = self._by_term.get(term, {})
            idf = math.log(1 + (len(self._documents) - len(postings) + 0.5) / (len(postings) + 0.5))
            for key, count in postings.items():
                length = self._documents[key].total() / average
                scores[key] += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * length))
        return scores
