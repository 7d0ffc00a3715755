import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.stores.analyzer import MAX_QUERY_TERMS, MAX_TERM_CHARS, Analyzer, is_unspaced


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The inspectors inspected 3 bridges.", ["inspector", "inspect", "3", "bridg"]),
        ("Café NAÏVE ﬁre Straße", ["cafe", "naiv", "fire", "strass"]),
        ("桥梁检查", ["桥", "梁", "检", "查", "桥梁", "梁检", "检查"]),
        ("第3章", ["第", "3", "章"]),
        ("GB/T-50010 v2.1_x", ["gb", "t", "50010", "v2", "1", "x"]),
        ("ガード １２", ["ガ", "ー", "ド", "ガー", "ード", "12"]),
        ("안전", ["안", "전", "안전"]),
        ("Москва", ["москва"]),
        ("", []),
        ("the of ?! \n\x00", []),
        ("x" * 100, ["x" * MAX_TERM_CHARS]),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert Analyzer().terms(text) == terms


def test_index_terms_add_words_as_they_stand() -> None:
    assert Analyzer().index_terms("Cracks in the gates 第3章") == [
        *("crack", "=cracks", "gate", "=gates"),
        *("第", "3", "=3", "章"),
    ]


def test_unspaced_terms_are_told_from_words() -> None:
    assert [is_unspaced(term) for term in ("桥", "桥梁", "bridge", "3")] == [True, True, False, False]


def test_a_long_question_is_cut() -> None:
    assert len(Analyzer().query_terms("word " * 5000)) == MAX_QUERY_TERMS


def test_threads_share_one_analyzer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.stores.analyzer.STEM_CACHE", 1)  # every word is stemmed anew
    endings = ("ing", "ation", "ational", "ness", "fulness", "ized", "ies", "edly")
    text = " ".join(stem + ending for stem in ("inspect", "relat", "organ", "happi") for ending in endings)
    expected, shared = Analyzer().terms(text), Analyzer()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            assert all(terms == expected for terms in threads.map(shared.terms, [text] * 200))
    finally:
        sys.setswitchinterval(before)
