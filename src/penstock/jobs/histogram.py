"""Logarithmic histograms of times: what the stores count, and how percentiles are read from the counts."""

import math
from collections.abc import Mapping

SLOT_S = 10
"""Width of one slot of time; counts are kept slot by slot."""
KEEP_S = 300
"""Percentiles look back so far."""
DRAIN_S = 60
"""The drain rate looks back so far."""

_FLOOR_S = 0.001
_STEPS = 4
_LAST = 120


def bucket(seconds: float) -> int:
    """The bucket of a time: four to the octave from one millisecond, so a percentile is right within 10 %."""
    if seconds <= _FLOOR_S:
        return 0
    return min(_LAST, math.ceil(math.log2(seconds / _FLOOR_S) * _STEPS))


def middle(index: int) -> float:
    """The time in seconds that a bucket stands for (the geometric middle of its bounds)."""
    return float(_FLOOR_S * 2 ** ((index - 0.5) / _STEPS))


def percentiles(counts: Mapping[int, int]) -> dict[str, float]:
    """`{"p50", "p95", "p99"}` of the counts by bucket; empty when nothing was counted."""
    total = sum(counts.values())
    if not total:
        return {}
    found: dict[str, float] = {}
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        seen = 0
        for index in sorted(counts):
            seen += counts[index]
            if seen >= share * total:
                found[name] = round(middle(index), 4)
                break
    return found
