import pytest

from penstock.pipeline.evidence import Evidence, Examiner
from penstock.stores.analyzer import Analyzer
from penstock.types import Chunk


def examine(question: str, *texts: str, headings: tuple[str, ...] = ()) -> list[Evidence]:
    chunks = [
        Chunk(
            id=f"chk_{i}",
            document_id="doc",
            version_id="ver",
            collection_id="col",
            position=i,
            text=text,
            start=0,
            end=len(text),
            tokens=1,
            headings=headings,
        )
        for i, text in enumerate(texts)
    ]
    return Examiner(Analyzer()).examine(question, chunks)


def test_words_in_one_sentence_weigh_more_than_the_same_words_apart() -> None:
    together, apart = examine(
        "When does the turbine gate freeze?",
        "In January the gate of the turbine may freeze. Nothing else is known.",
        "The turbine is old. The gate is new. Rivers freeze in January.",
    )
    assert together.odds > apart.odds
    assert together.cover == 1
    assert apart.cover < 0.5


def test_phrases_weigh_more_than_scattered_words() -> None:
    phrase, scattered = examine(
        "turbine gate",
        "They closed the turbine gate.",
        "The gate is closed by a turbine.",
    )
    assert phrase.odds > scattered.odds
    assert phrase.cover == scattered.cover == 1


def test_rare_words_weigh_more() -> None:
    rare, common, *_ = examine(
        "penstock inspection",
        "The penstock leaks.",
        "An inspection of the weir.",
        "Inspections are yearly.",
        "The inspection is late.",
    )
    assert rare.odds > common.odds


def test_chinese_sentences_are_compared_by_their_characters() -> None:
    answer, other = examine(
        "井盖破损多久内修复？",
        "检查每月一次。井盖破损必须在二十四小时内修复。",
        "井盖由市政部门检查。破损的路灯另行处理。",
    )
    assert answer.cover > other.cover
    assert answer.odds > other.odds


def test_headings_are_a_sentence() -> None:
    (found,) = examine("manhole covers", "They are round.", headings=("Article 12", "Manhole covers"))
    assert found.cover == 1


@pytest.mark.parametrize("question", ["", "the of", "?!"])
def test_a_question_without_terms_gives_no_evidence(question: str) -> None:
    assert examine(question, "Some text.", "") == [Evidence(0, 0), Evidence(0, 0)]


def test_no_passages() -> None:
    assert examine("anything") == []
