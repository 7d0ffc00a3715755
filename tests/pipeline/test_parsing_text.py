"""Encodings of text files, and the one form of text that everything behind the parsers may rely on."""

import pytest

from penstock.pipeline.parsing.html import split_head
from penstock.pipeline.parsing.markdown import find_headings
from penstock.pipeline.parsing.text import clean, decode, heading_text

CHINESE = "城市检查规范第三章规定，任何建筑物的外墙必须每两年检查一次。检查报告应当提交给市政部门。"
LATIN = "Café résumé naïve – “quoted” €5 über die Straße, señor"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_chinese_text_in_any_encoding(encoding: str) -> None:
    assert decode(CHINESE.encode(encoding)) == CHINESE


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_latin_text_in_any_encoding(encoding: str) -> None:
    assert decode(LATIN.encode(encoding)) == LATIN


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_latin_text_in_wide_encodings_without_a_mark(encoding: str) -> None:
    text = "The quick brown fox jumps over the lazy dog.\n" * 3
    assert decode(text.encode(encoding)) == text


def test_one_bad_byte_in_utf8_spoils_nothing_else() -> None:
    assert decode(CHINESE.encode() + b"\xff" + CHINESE.encode()) == f"{CHINESE}\ufffd{CHINESE}"


def test_declared_encoding_is_used_where_the_bytes_are_not_utf8() -> None:
    assert decode("Привет, мир".encode("cp1251"), "windows-1251") == "Привет, мир"
    assert decode("Привет".encode(), "windows-1251") == "Привет"
    assert decode(LATIN.encode("cp1252"), "no-such-encoding") == LATIN


def test_clean_leaves_valid_text_of_one_form() -> None:
    assert clean("a\r\nb\rc\x0cd") == "a\nb\nc\nd"
    assert clean("nul\x00 bell\x07 mark\ufeff half\ud800") == "nul bell mark half"
    assert clean("e\u0301") == "é"
    assert clean("tab\tand 中文 stay\n") == "tab\tand 中文 stay\n"
    clean("\udcff anything \ud83d").encode("utf-8")


def test_markdown_headings_with_their_places() -> None:
    text = "# One\n\ntext\n\nTwo\n---\n\n### Three ###\n```\n# not one\n```\n#hashtag\n- item\n---\n"
    headings = find_headings(text)
    assert [(heading.level, heading.text) for heading in headings] == [(1, "One"), (2, "Two"), (3, "Three")]
    assert [text[heading.start : heading.end] for heading in headings] == ["# One", "Two\n---", "### Three ###"]


def test_heading_of_a_c_sharp_text_keeps_its_sharp() -> None:
    assert [heading.text for heading in find_headings("# About C#\n## F# ##\n#\n")] == ["About C#", "F#", ""]


def test_heading_is_one_line_of_bounded_length() -> None:
    assert heading_text("a \n b") == "a b"
    assert len(heading_text("x" * 10_000)) == 200


def test_html_head_is_cut_off_and_its_charset_obeyed() -> None:
    page = f'<html><head><meta charset="gb2312"><title>规范 &amp; 报告</title></head><body>{CHINESE}</body></html>'
    body, title = split_head(page.encode("gb18030"))
    assert (body, title) == (f"<html><body>{CHINESE}</body></html>", "规范 & 报告")


def test_html_embedded_picture_is_dropped() -> None:
    body, _ = split_head(b'<p>a<img src="data:image/png;base64,iVBORw0KGgo=">b</p>')
    assert body == '<p>a<img src="">b</p>'
