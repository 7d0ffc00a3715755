"""The extractive answer: quotes with citations, or an honest "not found"."""

import pytest

from penstock.pipeline.answer import Answerer
from penstock.types import Chunk, Hit

TEXT = "The valve is made of steel. The intake gate opens at four bar. Paint it every year."


def make_hit(text: str = TEXT, *, start: int = 100, score: float = 0.9) -> Hit:
    chunk = Chunk(
        id="chk_1",
        document_id="doc_1",
        version_id="ver_1",
        collection_id="col_1",
        position=3,
        text=text,
        start=start,
        end=start + len(text),
        tokens=20,
        page=2,
        headings=("Gates", "Intake"),
    )
    return Hit(chunk=chunk, document_name="manual.pdf", score=score)


async def test_quotes_with_the_place_in_the_document() -> None:
    answer = await Answerer().answer("At how many bar does the intake gate open?", [make_hit()])

    citation = answer.citations[0]
    assert answer.found
    assert answer.text.startswith("The intake gate opens at four bar. [1]")
    assert (citation.number, citation.document_name, citation.page) == (1, "manual.pdf", 2)
    assert citation.headings == ("Gates", "Intake")
    assert TEXT[citation.start - 100 : citation.end - 100] == citation.quote == "The intake gate opens at four bar."
    assert answer.timings_ms["generate"] > 0


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Who won the cup in 1966?", "Not found in the documents."),
        ("谁赢得了1966年的奖杯？", "文档中没有找到相关内容。"),
    ],
)
async def test_says_not_found_in_the_language_of_the_question(question: str, text: str) -> None:
    for hits in ([], [make_hit(score=0.05)]):
        answer = await Answerer().answer(question, hits)
        assert (answer.text, answer.found, list(answer.citations)) == (text, False, [])


async def test_the_text_is_emitted_too() -> None:
    pieces: list[str] = []

    async def emit(piece: str) -> None:
        pieces.append(piece)

    answer = await Answerer().answer("When does the intake gate open?", [make_hit()], emit=emit)
    assert "".join(pieces) == answer.text
