"""One score from two lanes."""

import math

from penstock.stores.base import Candidate, LaneHits


def fuse(hits: LaneHits) -> list[tuple[float, Candidate]]:
    """Candidates with their fused score in [0, 1], best first."""
    scored = [(_logistic(_dense_z(hits, one) + _text_z(hits, one)), one) for one in hits.candidates]
    return sorted(scored, key=lambda pair: (-pair[0], pair[1].chunk_id))


def _dense_z(hits: LaneHits, one: Candidate) -> float:
    return 0.0 if one.dense is None or not hits.dense_std else (one.dense - hits.dense_mean) / hits.dense_std


def _text_z(hits: LaneHits, one: Candidate) -> float:
    best = max((c.fulltext or 0.0 for c in hits.candidates), default=0.0)
    return 5 * (one.fulltext or 0.0) / best if best else 0.0


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-(x - 5)))
