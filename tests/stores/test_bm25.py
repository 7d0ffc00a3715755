import math

import pytest

from penstock.stores.bm25 import Postings


def test_scores_are_okapi_bm25() -> None:
    postings = Postings()
    postings.add("a", ["crack", "crack", "bridge"])
    postings.add("b", ["bridge"])
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2))
    assert postings.scores(["crack"]) == {"a": pytest.approx(expected)}
    assert postings.scores(["crack", "crack"]) == {"a": pytest.approx(2 * expected)}
    assert postings.scores(["gate"]) == {}


def test_replacing_and_removing_leave_no_trace() -> None:
    postings = Postings()
    postings.add("a", ["crack", "gate"])
    before = postings.scores(["gate"])
    postings.add("b", ["crack"])
    postings.add("b", ["gate", "gate"])
    postings.remove("b")
    postings.remove("b")
    assert postings.scores(["gate"]) == before
