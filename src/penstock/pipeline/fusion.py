"""One score from two lanes, weighted question by question by how much each lane stands out.

Both lanes are read as log-odds that a row is the one asked for. BM25 is a sum of such terms already (Robertson and
Zaragoza 2009); a cosine becomes one when it is set against the collection, in standard deviations above the mean of
this question's cosines:

    text  = TEXT_SCALE · BM25                          dense = DENSE_SCALE · trust · (cosine - mean) / std

Nothing is scaled to a lane's own best, so a lane in which one row stands far above the rest moves the sum, and a lane
that says the same of all rows does not. The ranking is by the mixture

    share = ½ · softmax(dense + text) + ¼ · (trust · softmax(dense) + softmax(TEXT_ALONE · text))

over the candidates: the product of both lanes, which is right when both know something, and a part for each lane alone,
so that what one lane is sure of stays in the list when the other has never heard of it.

`trust` in [0, 1] is how far the embedding model can be believed for this question, a product of
- known: the share of the question's tokens that are in the model's vocabulary, as max(0, 3 · known - 2). A model that
  reads a third of a question as [UNK] (MiniLM and Chinese) has guessed the rest.
- standing out: by how many standard deviations the best cosine is above the best of n random draws from a normal
  distribution (Blom 1958), plus STANDOUT_BONUS, within [MIN_STANDOUT, 1]. A best that luck would have given as well has
  half of its weight, a worse one less.

The constants were chosen on the even-numbered questions of SQuAD dev and CMRC+DRCD: on these corpora whole, without
titles, mixed, and cut to samples of 5 to 1,500 passages, also with a part of the question's words replaced for the
full-text lane. The odd-numbered questions confirm them; STANDOUT_BONUS alone was settled with all in view. They lie on
a plateau: a third more or less of any one moves hit@1 by about a point.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from penstock.pipeline.evidence import Evidence
from penstock.stores.base import Candidate, LaneHits

Mode: TypeAlias = Literal["fused", "dense", "fulltext"]
Floats: TypeAlias = NDArray[np.float64]

TEXT_SCALE = 0.3
DENSE_SCALE = 2.0
TEXT_ALONE = 2 / 3
MIN_STANDOUT = 0.1
STANDOUT_BONUS = 0.5
MAX_EVIDENCE = 500.0

# Confidence that the best passage answers the question: a logistic regression over its share, its cosine and the cover
# of its best sentence, of answerable questions against the same put to collections without the answer (1 to 8,000
# passages, English and Chinese). Cosines of the sentence-transformers family are assumed: about ½ for related texts.
CONFIDENCE_SHARE = 3.3
CONFIDENCE_COSINE = 5.6
CONFIDENCE_COVER = 5.9
CONFIDENCE_BIAS = -7.0
NEUTRAL = 0.5
NOTHING = Evidence(odds=0.0, cover=0.0)


class Ranked(NamedTuple):
    """A candidate with its share of the belief (all candidates' sum up to 1), its log-odds from both lanes, and its
    cosine (NEUTRAL as far as the embedding model cannot read the question)."""

    candidate: Candidate
    share: float
    odds: float
    cosine: float


def fuse(hits: LaneHits, *, mode: Mode = "fused", known: float = 1.0) -> list[Ranked]:
    """The candidates, best first; of equal share, in the order of their ids. `known`: see the module's docstring."""
    if not hits.candidates:
        return []
    readable = max(0.0, 3 * known - 2) if mode == "fused" else float(mode == "dense")
    cosines = np.array([one.dense or 0.0 for one in hits.candidates])
    standard = _standard(hits, cosines)
    text = TEXT_SCALE * np.array([one.fulltext or 0.0 for one in hits.candidates]) * (mode != "dense")
    dense = DENSE_SCALE * standard * (mode != "fulltext")
    if mode == "fused":
        trust = readable * _standout(hits, standard)
        dense *= trust
        share = 0.5 * _softmax(dense + text) + 0.25 * (trust * _softmax(dense) + _softmax(TEXT_ALONE * text))
        share /= share.sum()
    else:
        share = _softmax(dense + text)
    cosine = readable * cosines + (1 - readable) * NEUTRAL
    odds = dense + text
    rows = zip(hits.candidates, share.tolist(), odds.tolist(), cosine.tolist(), strict=True)
    return sorted(map(Ranked._make, rows), key=lambda one: (-one[1], one[0].chunk_id))


def score(ranked: Sequence[Ranked], evidence: Sequence[Evidence] = ()) -> list[tuple[float, Candidate]]:
    """Candidates with their score in [0, 1], best first. `evidence` is of the first of `ranked`, as many as there are.

    The best one's score estimates how likely it answers the question, comparable between questions and collections; the
    others' fall with the square root of their share of it.
    """
    if not ranked:
        return []
    padded = [*evidence, *[NOTHING] * (len(ranked) - len(evidence))]
    weighed = [one.share * math.exp(min(found.odds, MAX_EVIDENCE)) for one, found in zip(ranked, padded, strict=True)]
    order = sorted(range(len(ranked)), key=lambda i: -weighed[i])
    best = order[0]
    cover = evidence[best].cover if best < len(evidence) else NEUTRAL
    confidence = _confidence(ranked[best], cover)
    return [(confidence * math.sqrt(weighed[i] / weighed[best]), ranked[i].candidate) for i in order]


def _standard(hits: LaneHits, cosines: Floats) -> Floats:
    """Each candidate's cosine in standard deviations above the collection's mean; zeros where these are unknown."""
    if hits.dense_std <= 0:
        return np.zeros(len(cosines))
    return (cosines - hits.dense_mean) / hits.dense_std


def _standout(hits: LaneHits, standard: Floats) -> float:
    luck = NormalDist().inv_cdf((hits.rows - 0.375) / (hits.rows + 0.25))
    return min(1.0, max(MIN_STANDOUT, float(standard.max()) - luck + STANDOUT_BONUS))


def _softmax(odds: Floats) -> Floats:
    weights: Floats = np.exp(odds - odds.max())
    weights /= weights.sum()
    return weights


def _confidence(best: Ranked, cover: float) -> float:
    """The share is taken against one candidate more, "none of these", whose log-odds are 0."""
    share = best.share * _logistic(best.odds)
    return _logistic(
        CONFIDENCE_SHARE * share + CONFIDENCE_COSINE * best.cosine + CONFIDENCE_COVER * cover + CONFIDENCE_BIAS
    )


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
