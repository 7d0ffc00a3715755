"""What a file is: the bytes decide, the name and the declared type only where the bytes leave it open."""

import io
import zipfile

import pytest

from penstock.errors import InvalidInput, UnsupportedMedia
from penstock.pipeline import media
from penstock.pipeline.media import sniff

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512)


def zipped(*names: str, mimetype: str = "") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype)
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("report.pdf", b"%PDF-1.7\n", media.PDF),
        ("scan", b"\x00 junk before it\n%PDF-1.4", media.PDF),
        ("a.docx", zipped("[Content_Types].xml", "word/document.xml"), media.DOCX),
        ("a.pptx", zipped("[Content_Types].xml", "ppt/presentation.xml"), media.PPTX),
        ("a.xlsx", zipped("[Content_Types].xml", "xl/workbook.xml"), media.XLSX),
        ("book", zipped("OEBPS/a.xhtml", mimetype="application/epub+zip"), media.EPUB),
        ("a.odt", zipped("content.xml", mimetype="application/vnd.oasis.opendocument.text"), media.ODT),
        ("a.docx", zipped("[Content_Types].xml"), media.DOCX),
        ("a.rtf", rb"{\rtf1 hello}", media.RTF),
        ("a.png", b"\x89PNG\r\n\x1a\n....", media.PNG),
        ("a.jpg", b"\xff\xd8\xff\xe0", media.JPEG),
        ("a.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 ", media.WEBP),
        ("a.tif", b"II*\x00\x08", media.TIFF),
        ("a.gif", b"GIF89a", media.GIF),
        ("a.bmp", b"BM\x00\x00", media.BMP),
        ("a.csv", b"a,b\n1,2\n", media.CSV),
        ("a.md", b"# hello", media.MARKDOWN),
        ("a.json", b'{"a": 1}', media.JSON),
        ("a.eml", b"Subject: x\n\nbody", media.EML),
        ("notes.log", b"12:00 started\n", media.TEXT),
        ("README", "Füße".encode(), media.TEXT),
        ("a.txt", "hello".encode("utf-16"), media.TEXT),
        ("a.txt", "hello there".encode("utf-16-le"), media.TEXT),
        ("a.txt", "hello".encode("utf-32"), media.TEXT),
        ("a.txt", "第一章".encode("gb18030"), media.TEXT),
        ("locked.xlsx", OLE, media.XLSX),
    ],
)
def test_type_of_honest_files(name: str, head: bytes, expected: str) -> None:
    assert sniff(name, head, None) == expected


@pytest.mark.parametrize(
    ("name", "head", "declared", "expected"),
    [
        ("a.docx", b"%PDF-1.4", "application/msword", media.PDF),
        ("a.pdf", b"just text\n", "application/pdf", media.TEXT),
        ("a.docx", b"<!DOCTYPE html><html><body>x", None, media.HTML),
        ("a.docx", zipped("xl/workbook.xml"), media.DOCX, media.XLSX),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "text/plain", media.PNG),
        ("message", b"From: a@b.example\nSubject: x\n\nhi", "application/octet-stream", media.EML),
        ("upload", b"a,b\n", "text/csv; charset=utf-8", media.CSV),
        ("page", b"<!-- one --><!-- two -->\n<html>", None, media.HTML),
    ],
)
def test_bytes_win_over_name_and_declared_type(name: str, head: bytes, declared: str | None, expected: str) -> None:
    assert sniff(name, head, declared) == expected


@pytest.mark.parametrize("name", ["a.pdf", "a.txt", ""])
def test_empty_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="0 bytes") as caught:
        sniff(name, b"", None)
    assert caught.value.code == "empty_file"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.exe", b"MZ\x90\x00\x03\x00\x00\x00" * 16),
        ("a.zip", zipped("a.txt")),
        ("old.doc", OLE),
        ("a.mp3", b"ID3\x04\x00\x00\x00\x00\x00\x00" * 4),
        ("a.pdf", bytes(range(256)) * 4),
    ],
)
def test_unknown_binary_is_refused_with_what_is_supported(name: str, head: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match="PDF, DOCX"):
        sniff(name, head, None)


@pytest.mark.case(30)
def test_many_comments_before_something_that_is_not_html_take_no_time() -> None:
    head = (b"<!-- -->" * 8192)[: media.HEAD_BYTES]
    assert sniff("a", head, None) == media.TEXT  # with exponential backtracking the universe would end first


@pytest.mark.case(29)
def test_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidInput) as caught:
        sniff("x" * 5000 + ".pdf", b"", None)
    assert len(caught.value.message) < 300
