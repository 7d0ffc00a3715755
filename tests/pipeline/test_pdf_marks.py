"""Marks between letters of a PDF, which kreuzberg takes for broken ligatures, come out as the page has them."""

from pathlib import Path

import pytest

from penstock.pipeline import media
from penstock.pipeline.parsing.extract import Extractor
from penstock.pipeline.parsing.pdf import RawPage


@pytest.mark.parametrize(
    ("raw", "made"),
    [
        ("key:value and foo*bar", "keytivalue and foottbar"),
        ("时间:早上八点", "时间ti早上八点"),
        ("小程序“随手拍”上报", "小程序ffi随手拍ffi上报"),
        ('say"hello"now', "sayffihelloffinow"),
        ("wow!great, C#major", "wowfigreat, Cfimajor"),
        ("set the width:\r\nheight ratio", "set the widthti height ratio"),
        ("office flow, attic: staff title", "office flow, attic: staff title"),
        ("of\ufb01ce \ufb02ow", "office flow"),
        ("a notifi-\r\ncation of matters", "a notification of matters"),
        ("", "a title"),
    ],
)
def test_what_stood_there_is_put_back(raw: str, made: str) -> None:
    plain = " ".join(raw.translate({0xFB01: "fi", 0xFB02: "fl"}).replace("-\r\n", "").split())
    assert RawPage(raw).restore_ligatures(made) == (plain or made)


def test_a_real_file_keeps_its_marks(shared_data: Path) -> None:
    data = (shared_data / "docs" / "good" / "a1977-backus-p21.pdf").read_bytes()
    text = Extractor().parse(data, media.PDF).text
    assert "atom:x" in text
    assert "xtix" not in text
