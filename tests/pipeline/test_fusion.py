import math

import pytest

from penstock.pipeline.fusion import fuse
from penstock.stores import Candidate, LaneHits


def hits(*scores: tuple[float | None, float | None], rows: int = 1000, mean: float = 0.1, std: float = 0.1) -> LaneHits:
    """Candidates a, b, c … with (cosine, BM25) in a collection where cosines are `mean` ± `std`."""
    candidates = [Candidate(chunk_id=chr(97 + i), dense=dense, fulltext=text) for i, (dense, text) in enumerate(scores)]
    return LaneHits(candidates=candidates, rows=rows, dense_mean=mean, dense_std=std)


def order(found: LaneHits, **options: float) -> str:
    return "".join(one.chunk_id for _, one in fuse(found, **options))  # type: ignore[arg-type]


def test_nothing_found_is_nothing() -> None:
    assert fuse(LaneHits()) == []


def test_the_lane_that_stands_out_decides() -> None:
    assert order(hits((0.80, 10.0), (0.40, 14.0))) == "ab"  # 4 deviations against 4 points
    assert order(hits((0.45, 10.0), (0.40, 40.0))) == "ba"  # half a deviation against 30 points


def test_a_lane_that_says_the_same_of_all_decides_nothing() -> None:
    assert order(hits((0.50, 10.0), (0.50, 11.0))) == "ba"
    assert order(hits((0.52, 10.0), (0.50, 10.0))) == "ab"


def test_a_best_that_luck_would_give_too_hardly_counts() -> None:
    """Of 1000 normal draws the best is 3.2 deviations above the mean."""
    lucky, clear = ((0.42, 10.0), (0.22, 14.0)), ((0.62, 10.0), (0.42, 14.0))
    assert order(hits(*lucky)) == "ba"
    assert order(hits(*clear)) == "ab"


def test_a_question_that_the_model_cannot_read_is_left_to_the_full_text() -> None:
    found = hits((0.9, 10.0), (0.2, 12.0), (0.8, 11.0))
    assert order(found) == "acb"
    assert order(found, known=0.5) == order(found, known=0.0) == "bca"


def test_what_only_one_lane_found_keeps_its_place() -> None:
    """What full-text never found, and what is far off by meaning, both stand before what is fair in both."""
    found = hits((0.75, 0.0), (0.0, 60.0), (0.3, 15.0))
    assert set(order(found)[:2]) == {"a", "b"}


def test_modes_rank_by_their_own_lane() -> None:
    found = hits((0.9, 10.0), (0.2, 12.0), (0.8, 11.0))
    assert [one.chunk_id for _, one in fuse(found, mode="dense", known=0.0)] == ["a", "c", "b"]
    assert [one.chunk_id for _, one in fuse(found, mode="fulltext")] == ["b", "c", "a"]


@pytest.mark.parametrize(
    "found",
    [
        hits((0.9, 10.0), rows=1, std=0.0),
        hits((0.9, None), (0.2, None), rows=2),
        hits((None, 300.0), (None, 2.0), rows=5, std=0.0, mean=0.0),
        hits((0.9, 1e4), (-1.0, 0.0), rows=10_000_000),
    ],
)
def test_scores_fall_and_stay_between_zero_and_one(found: LaneHits) -> None:
    scores = [score for score, _ in fuse(found)]
    assert scores == sorted(scores, reverse=True)
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in scores)


def test_equal_rows_come_in_the_order_of_their_ids() -> None:
    assert order(hits(*[(0.5, 5.0)] * 4)) == "abcd"


def test_the_best_score_tells_evidence_from_none() -> None:
    answered = hits((0.68, 50.0), (0.45, 20.0), (0.40, 18.0))
    weak = hits((0.42, 14.0), (0.41, 13.0), (0.40, 13.5))
    assert fuse(answered)[0][0] > 0.8
    assert fuse(weak)[0][0] < 0.3
    small = hits((0.60, 20.0), (0.30, 3.0), rows=5, std=0.2)
    assert fuse(small)[0][0] > 0.6
