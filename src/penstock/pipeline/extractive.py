"""Answers without a language model: the sentences of the passages that match the question best, and how well they do.

A sentence's score is the share of the question's terms that it holds, each term weighted by its rarity among the
sentences at hand (Robertson and Spärck Jones' idf); the passage around it and the passage's rank add to it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.pipeline.sentences import Sentence, split_sentences
from penstock.stores.analyzer import Analyzer
from penstock.types import Hit


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence of a hit's chunk that answers the question, offsets within the chunk's text; `score` in [0, 1]."""

    hit: Hit
    sentence: Sentence
    score: float


@dataclass(frozen=True, slots=True)
class Extract:
    """The best quotes, best first, and the evidence in [0, 1] that they answer the question at all."""

    quotes: Sequence[Quote]
    evidence: float


class Extractor:
    """Finds the sentences to quote."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer

    def extract(self, question: str, hits: Sequence[Hit], *, max_quotes: int = 3) -> Extract:
        """The best sentences of `hits` (best first) for `question`; no quotes when there is no hit."""
        wanted = self._terms(question)
        candidates = [
            (hit, sentence, self._terms(sentence.text)) for hit in hits for sentence in split_sentences(hit.chunk.text)
        ]
        weights = _idf(wanted, [found for _, _, found in candidates])
        around = {hit.chunk.id: self._terms("\n".join([*hit.chunk.headings, hit.chunk.text])) for hit in hits}
        quotes = [
            Quote(
                hit,
                sentence,
                0.6 * _cover(weights, found) + 0.2 * _cover(weights, around[hit.chunk.id]) + 0.2 * hit.score,
            )
            for hit, sentence, found in candidates
        ]
        best = _distinct(sorted(quotes, key=lambda quote: -quote.score))[:max_quotes]
        return Extract(best, best[0].score if best else 0.0)

    def _terms(self, text: str) -> frozenset[str]:
        return frozenset(self._analyzer.terms(text))


def _idf(wanted: frozenset[str], sentences: Sequence[frozenset[str]]) -> Mapping[str, float]:
    counts = Counter(term for found in sentences for term in found & wanted)
    n = len(sentences)
    return {term: math.log(1 + (n - counts[term] + 0.5) / (counts[term] + 0.5)) for term in wanted}


def _cover(weights: Mapping[str, float], found: frozenset[str]) -> float:
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in found) / total if total else 0.0


def _distinct(quotes: Sequence[Quote]) -> list[Quote]:
    """Without those that say the same again: overlapping chunks repeat sentences."""
    seen: set[str] = set()
    kept = []
    for quote in quotes:
        if quote.sentence.text not in seen:
            seen.add(quote.sentence.text)
            kept.append(quote)
    return kept
