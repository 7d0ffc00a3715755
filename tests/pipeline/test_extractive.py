"""The sentences that an extractive answer quotes."""

from dataclasses import replace

from penstock.pipeline.extractive import Extractor
from penstock.stores.analyzer import Analyzer
from penstock.types import Chunk, Hit


def hit(text: str, *, name: str = "manual", score: float = 0.9, start: int = 0) -> Hit:
    chunk = Chunk(
        id=f"chk_{name}_{start}",
        document_id=name,
        version_id="v",
        collection_id="c",
        position=0,
        text=text,
        start=start,
        end=start + len(text),
        tokens=len(text) // 4,
    )
    return Hit(chunk=chunk, document_name=f"{name}.md", score=score)


def test_quotes_the_sentence_that_holds_the_question_s_words() -> None:
    text = "The valve is made of steel. The intake gate opens at four bar. Paint it every year."
    extract = Extractor(Analyzer()).extract("At which pressure does the intake gate open?", [hit(text)])
    assert extract.quotes[0].sentence.text == "The intake gate opens at four bar."


def test_chinese() -> None:
    text = "井盖由铸铁制成。破损的井盖应当在二十四小时内更换。每年刷漆一次。"
    extract = Extractor(Analyzer()).extract("破损的井盖要在多长时间内更换？", [hit(text)])
    assert extract.quotes[0].sentence.text == "破损的井盖应当在二十四小时内更换。"


def test_a_sentence_of_overlapping_chunks_is_quoted_once() -> None:
    text = "The intake gate opens at four bar."
    extract = Extractor(Analyzer()).extract("When does the intake gate open?", [hit(text), hit(text, start=40)])
    assert len(extract.quotes) == 1


def test_the_answer_to_a_question_in_the_text_is_quoted_and_not_the_question() -> None:
    text = "May I put tables on the pavement? Yes, from April to October.\n\n# Waste\nBins are emptied on Monday."
    extract = Extractor(Analyzer()).extract("May I put tables on the pavement?", [hit(text)])
    assert extract.quotes[0].sentence.text == "Yes, from April to October."


def test_a_heading_is_not_quoted_but_what_stands_below_it() -> None:
    text = "5.1 Missing manhole cover\n\nThe owner comes within 90 minutes.\n\nPaint it yearly."
    plain = hit(text.removeprefix("5.1 "))
    below = replace(plain, chunk=replace(plain.chunk, headings=("Missing manhole cover",)))
    for found in (hit(text), hit(f"## {text}"), below):
        extract = Extractor(Analyzer()).extract("Who comes for a missing manhole cover?", [found])
        assert extract.quotes[0].sentence.text == "The owner comes within 90 minutes."


def test_no_hits_no_quotes() -> None:
    extract = Extractor(Analyzer()).extract("When?", [])
    assert (extract.quotes, extract.evidence) == ([], 0.0)
