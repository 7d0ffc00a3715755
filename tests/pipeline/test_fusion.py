import math

import pytest

from penstock.pipeline.evidence import Evidence
from penstock.pipeline.fusion import Mode, fuse, score
from penstock.stores import Candidate, LaneHits


def hits(*scores: tuple[float | None, float | None], rows: int = 1000, mean: float = 0.1, std: float = 0.1) -> LaneHits:
    """Candidates a, b, c … with (cosine, BM25) in a collection where cosines are `mean` ± `std`."""
    candidates = [Candidate(chunk_id=chr(97 + i), dense=dense, fulltext=text) for i, (dense, text) in enumerate(scores)]
    return LaneHits(candidates=candidates, rows=rows, dense_mean=mean, dense_std=std)


def order(found: LaneHits, *, mode: Mode = "fused", known: float = 1.0) -> str:
    return "".join(one.candidate.chunk_id for one in fuse(found, mode=mode, known=known))


def test_nothing_found_is_nothing() -> None:
    assert fuse(LaneHits()) == []
    assert score([]) == []


def test_the_lane_that_stands_out_decides() -> None:
    assert order(hits((0.80, 10.0), (0.40, 14.0))) == "ab"  # 4 deviations against 4 points
    assert order(hits((0.45, 10.0), (0.40, 40.0))) == "ba"  # half a deviation against 30 points


def test_a_lane_that_says_the_same_of_all_decides_nothing() -> None:
    assert order(hits((0.50, 10.0), (0.50, 11.0))) == "ba"
    assert order(hits((0.52, 10.0), (0.50, 10.0))) == "ab"


def test_a_best_worse_than_luck_hardly_counts() -> None:
    """Of 1000 normal draws the best is 3.2 deviations above the mean."""
    assert order(hits((0.35, 10.0), (0.15, 14.0))) == "ba"
    assert order(hits((0.62, 10.0), (0.42, 14.0))) == "ab"


def test_a_question_that_the_model_cannot_read_is_left_to_the_full_text() -> None:
    found = hits((0.9, 10.0), (0.2, 12.0), (0.8, 11.0))
    assert order(found) == "acb"
    assert order(found, known=2 / 3) == order(found, known=0.0) == "bca"


def test_what_only_one_lane_found_keeps_its_place() -> None:
    """What full-text never found, and what is far off by meaning, both stand before what is fair in both."""
    found = hits((0.75, 0.0), (0.0, 60.0), (0.3, 15.0))
    assert set(order(found)[:2]) == {"a", "b"}


def test_modes_rank_by_their_own_lane() -> None:
    found = hits((0.9, 10.0), (0.2, 12.0), (0.8, 11.0))
    assert order(found, mode="dense", known=0.0) == "acb"
    assert order(found, mode="fulltext") == "bca"


def test_equal_rows_come_in_the_order_of_their_ids() -> None:
    assert order(hits(*[(0.5, 5.0)] * 4)) == "abcd"


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
    ranked = fuse(found)
    assert sum(one.share for one in ranked) == pytest.approx(1)
    for evidence in ((), [Evidence(1e4, 1.0)], [Evidence(0.0, 0.0)] * len(ranked)):
        scores = [points for points, _ in score(ranked, evidence)]
        assert scores == sorted(scores, reverse=True)
        assert all(math.isfinite(points) and 0 <= points <= 1 for points in scores)


def test_evidence_moves_what_was_examined() -> None:
    ranked = fuse(hits((0.60, 20.0), (0.58, 19.0), (0.1, 1.0)))
    assert [one.chunk_id for _, one in score(ranked)] == ["a", "b", "c"]
    assert [one.chunk_id for _, one in score(ranked, [Evidence(0, 0), Evidence(4, 0.9)])] == ["b", "a", "c"]


def test_the_best_score_tells_evidence_from_none() -> None:
    answered = fuse(hits((0.68, 50.0), (0.45, 20.0), (0.40, 18.0)))
    weak = fuse(hits((0.32, 14.0), (0.31, 13.0), (0.30, 13.5)))
    assert score(answered, [Evidence(5.0, 0.9)])[0][0] > 0.8
    assert score(answered)[0][0] > 0.6
    assert score(weak, [Evidence(1.0, 0.3)] * 3)[0][0] < 0.2
    one_of_five = fuse(hits((0.65, 20.0), (0.30, 3.0), rows=5, std=0.2))
    assert score(one_of_five, [Evidence(3.0, 0.7)])[0][0] > 0.6
    only_one_and_unrelated = fuse(hits((0.05, 0.0), rows=1, mean=0.05, std=0.0))
    assert score(only_one_and_unrelated, [Evidence(0.0, 0.0)])[0][0] < 0.05
