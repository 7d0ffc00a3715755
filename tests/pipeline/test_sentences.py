"""Where sentences end, in both languages, and that offsets are exact."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pipeline.sentences import MAX_SENTENCE_CHARS, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It opens. It closes! Why? So.", ["It opens.", "It closes!", "Why?", "So."]),
        ("Dr. J. R. Smith left the U.S. in 3.5 years.", ["Dr. J. R. Smith left the U.S. in 3.5 years."]),
        ('"Why?" she asked. "No." He left.', ['"Why?" she asked.', '"No."', "He left."]),
        ("A line wraps\nin the middle. Next.", ["A line wraps\nin the middle.", "Next."]),
        ("It stopped.[4] Then it ran.", ["It stopped.[4]", "Then it ran."]),
        ("# Gates\nThey open. More\n\nOther", ["# Gates", "They open.", "More", "Other"]),
        (
            "Rules:\n- one\n- two.\n1. First thing.\n| a | b |",
            ["Rules:", "- one", "- two.", "1. First thing.", "| a | b |"],
        ),
        ("井盖每月检查。记录！价格是3.5元。", ["井盖每月检查。", "记录！", "价格是3.5元。"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("总则\n第一条 井盖\n（一）检查\n（二）维修", ["总则", "第一条 井盖", "（一）检查", "（二）维修"]),
        ("From: A. Smith\nTo: B\n\nHello.", ["From: A. Smith", "To: B", "Hello."]),
        ("地点：纺织巷\n时间：三点", ["地点：纺织巷", "时间：三点"]),
        (" \n ", []),
    ],
)
def test_splits(text: str, sentences: list[str]) -> None:
    assert [sentence.text for sentence in split_sentences(text)] == sentences


def test_a_run_without_an_end_is_cut() -> None:
    sentences = split_sentences("word " * 1000)
    assert max(len(sentence.text) for sentence in sentences) <= MAX_SENTENCE_CHARS
    assert " ".join(sentence.text for sentence in sentences) == ("word " * 1000).strip()


@given(st.text(alphabet='aB3.!?。！ \n\t"”-#|、[]1\u3000', max_size=200))
def test_offsets_are_exact_and_nothing_is_lost(text: str) -> None:
    sentences = split_sentences(text)
    assert all(text[s.start : s.end] == s.text == s.text.strip() for s in sentences)
    assert "".join("".join(s.text.split()) for s in sentences) == "".join(text.split())
    assert all(before.end <= after.start for before, after in itertools.pairwise(sentences))
