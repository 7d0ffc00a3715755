"""Answers without a language model: the sentences of the passages that match the question best, and how sure that is.

Words are weighed by how rare they are among the sentences at hand (Robertson and Spärck Jones' idf). The constants
below were fitted on the even-numbered questions of SQuAD dev and CMRC+DRCD, put to 300 passages and to all, with and
without the article that answers them; `bench/answers.py` measures them on the odd-numbered ones.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from penstock.pipeline.sentences import Sentence, split_sentences
from penstock.stores.analyzer import Analyzer
from penstock.types import Chunk, Hit

# A sentence's score: the share of the question that it holds, what the one before it adds to that, and the passage's
# score beside the best passage's.
OWN, BEFORE, PASSAGE = 0.55, 0.10, 0.35

# Log-odds that the passages answer the question: the share of it that the best sentence's passage holds, and the score
# of the best passage, which retrieval has calibrated. Longer words count for more, up to a length; a pair of Chinese
# characters counts like a word of four letters, but not at all where it only says how something is asked.
EVIDENCE_WORDS, EVIDENCE_SCORE, EVIDENCE_BIAS = 6.4, 5.3, -5.5
LONGEST_WORD, GRAM = 8, 4
FUNCTION_CHARACTERS = frozenset(
    "的了是在和與与有哪些个個什麼么谁誰何多少几幾吗嗎呢为為怎样樣如請请问問那这這其中及或等被把由於于以之而且也都就還还要會会能可"
)

_LEADS = re.compile(r"[?？]$|^#{1,6} |^\d+(?:\.\d+)+\.? [^.。]*$")
"""A question, a Markdown heading, or a numbered one."""

WORTH_QUOTING = 0.7
"""A further quote needs this share of the best one's score: two quotes an answer on average instead of three, for one
answer in a hundred that only the third sentence holds."""

REMEMBERED = 500
"""Passages whose sentences are kept: the same few are found again and again."""


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


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A sentence, its terms, and those of the one before it.

    A heading or a question only leads to what comes next: its terms count as the next sentence's own.
    """

    hit: Hit
    sentence: Sentence
    leads: bool
    own: frozenset[str]
    before: frozenset[str]


class Extractor:
    """Finds the sentences to quote."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._read = lru_cache(maxsize=REMEMBERED)(self._read_anew)

    def extract(self, question: str, hits: Sequence[Hit], *, max_quotes: int = 3) -> Extract:
        """The best sentences of `hits` for `question`; none when there is no hit or no word to look for."""
        wanted = self._terms(question)
        candidates = [candidate for hit in hits for candidate in self._candidates(hit)]
        candidates = [one for one in candidates if _says_more(one, wanted)] or candidates
        if not wanted or not candidates:
            return Extract([], 0.0)
        quotes = _rank(candidates, wanted)
        least = WORTH_QUOTING * quotes[0].score
        worthy = [quote for quote in _distinct(quotes) if quote.score >= least]
        top_score = max(hit.score for hit in hits)
        return Extract(worthy[:max_quotes], self._evidence(wanted, quotes[0].hit.chunk, top_score))

    def nearest(self, text: str, hit: Hit) -> Quote:
        """The sentence of the hit that shares most with `text`."""
        return _rank(self._candidates(hit), self._terms(text))[0]

    def _candidates(self, hit: Hit) -> list[_Candidate]:
        """At least one: a chunk without any sentence is one."""
        headings = frozenset(hit.chunk.headings)
        candidates: list[_Candidate] = []
        for sentence, terms in self._read(hit.chunk.text):
            last = candidates[-1] if candidates else None
            inherited = last.own if last and last.leads else frozenset()
            leads = sentence.text.lstrip("# ") in headings or bool(_LEADS.search(sentence.text))
            own = terms | inherited
            candidates.append(_Candidate(hit, sentence, leads, own, last.own if last else frozenset()))
        return candidates

    def _evidence(self, wanted: frozenset[str], chunk: Chunk, top_score: float) -> float:
        passage = self._terms("\n".join([*chunk.headings, chunk.text]))
        weights = {term: _weight(term) for term in wanted}
        return _logistic(EVIDENCE_WORDS * _share(weights, passage) + EVIDENCE_SCORE * top_score + EVIDENCE_BIAS)

    def _read_anew(self, text: str) -> Sequence[tuple[Sentence, frozenset[str]]]:
        sentences = split_sentences(text) or [Sentence(text, 0, len(text))]
        return [(sentence, self._terms(sentence.text)) for sentence in sentences]

    def _terms(self, text: str) -> frozenset[str]:
        return frozenset(self._analyzer.terms(text))


def _says_more(candidate: _Candidate, wanted: frozenset[str]) -> bool:
    """Whether it can answer: a heading, a question, or a sentence of the question's own words alone tells nothing."""
    return not candidate.leads and not candidate.own <= wanted


def _points(hit: Hit) -> float:
    """What the order of the hits follows."""
    return hit.score if hit.rerank_score is None else hit.rerank_score


def _rank(candidates: Sequence[_Candidate], wanted: frozenset[str]) -> list[Quote]:
    weights = _rarity(wanted, candidates)
    top_score = max(_points(one.hit) for one in candidates) or 1.0
    quotes = []
    for one in candidates:
        own = _share(weights, one.own)
        added = _share(weights, one.own | one.before) - own
        score = OWN * own + BEFORE * added + PASSAGE * _points(one.hit) / top_score
        quotes.append(Quote(one.hit, one.sentence, score))
    return sorted(quotes, key=lambda quote: -quote.score)


def _weight(term: str) -> int:
    if term.isascii():
        return min(len(term), LONGEST_WORD)
    return 0 if FUNCTION_CHARACTERS.issuperset(term) else GRAM


def _rarity(wanted: frozenset[str], candidates: Sequence[_Candidate]) -> Mapping[str, float]:
    counts = Counter(term for candidate in candidates for term in candidate.own & wanted)
    n = len(candidates)
    return {term: math.log(1 + (n - counts[term] + 0.5) / (counts[term] + 0.5)) for term in wanted}


def _share(weights: Mapping[str, float], found: frozenset[str]) -> float:
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


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
