"""Each format's text, pages and headings, as the extractor in the parser process gives them."""

import io
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing import ParsedDocument
from penstock.pipeline.parsing.extract import IMAGE_NOTE, NO_TEXT_NOTE, Extractor

EXAMPLES = Path(__file__).parents[2] / "examples" / "documents"


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor()


def example(extractor: Extractor, name: str) -> ParsedDocument:
    data = (EXAMPLES / name).read_bytes()
    return extractor.parse(data, media.sniff(name, data[: media.HEAD_BYTES], None))


def heading_lines(document: ParsedDocument) -> list[tuple[int, str]]:
    for heading in document.headings:
        assert document.text[heading.start : heading.end] == heading.text
    return [(heading.level, heading.text) for heading in document.headings]


def page_texts(document: ParsedDocument) -> dict[int, str]:
    return {page.number: document.text[page.start : page.end] for page in document.pages}


def test_pdf_has_pages_and_headings_and_whole_paragraphs(extractor: Extractor) -> None:
    document = example(extractor, "operations-handbook.pdf")
    assert heading_lines(document)[:4] == [
        (1, "Clearbay Street Operations Handbook"),
        (2, "1. Purpose and scope"),
        (2, "2. Organisation"),
        (3, "2.1 Roles"),
    ]
    assert "the only person who may close a road. Each district has a lead inspector" in document.text
    pages = page_texts(document)
    assert list(pages) == [1, 2]
    assert document.page_count == 2
    assert "".join(pages.values()) == document.text


def test_chinese_pdf_keeps_its_quotation_marks(extractor: Extractor) -> None:
    document = example(extractor, "城市管理巡查规范.pdf")
    assert "“清湾随手拍”小程序" in document.text
    assert "ffi" not in document.text
    assert (2, "第三章市容秩序") in heading_lines(document)


def test_docx_headings_and_table(extractor: Extractor) -> None:
    document = example(extractor, "inspection-report-riverside.docx")
    assert (3, "Bearings") in heading_lines(document)
    assert "| Measure | Priority | Due | Estimated cost |\n| --- | --- | --- | --- |\n" in document.text


def test_each_slide_is_a_page_under_its_title(extractor: Extractor) -> None:
    document = example(extractor, "site-safety-training.pptx")
    pages = page_texts(document)
    assert document.page_count == len(pages) == 6
    assert pages[3].startswith("The cone taper\n")
    assert "4 cones" in pages[3]
    assert len(document.headings) == 6


def test_each_sheet_is_a_page_under_its_name(extractor: Extractor) -> None:
    document = example(extractor, "service-fees.xlsx")
    assert heading_lines(document) == [(2, "Permits"), (2, "Charges")]
    assert page_texts(document)[2].startswith("Charges\n\n| Offence | First time (EUR) |")
    assert "#" not in document.text


def test_epub_chapters(extractor: Extractor) -> None:
    document = example(extractor, "field-guide.epub")
    assert (1, "Trees") in heading_lines(document)
    assert document.title == "The Street Inspector's Field Guide"


def test_rtf(extractor: Extractor) -> None:
    assert "Van 12 has a slow puncture" in example(extractor, "shift-notes.rtf").text


def test_html_loses_no_text_and_no_marks_stay(extractor: Extractor) -> None:
    page = (
        "<html><head><title>Fees</title><meta name='author' content='Bob'></head><body><h1>Fees &amp; fines</h1>"
        "<p>A <b>bold</b> <a href='https://example.com'>link</a>, 3 &lt; 4</p><dl><dt>Skip</dt><dd>12 euros</dd></dl>"
        "<div>Loose text<h2>More<br>here</h2></div><ul><li>one</li></ul><img src='x.png' alt='A map'>"
        "<table><tr><th>a</th></tr><tr><td>b</td></tr></table><footer>Foot</footer><script>evil()</script></body></html>"
    )
    document = extractor.parse(page.encode(), media.HTML)
    assert document.title == "Fees"
    assert heading_lines(document) == [(1, "Fees & fines"), (2, "More here")]
    for text in (
        "A bold link, 3 < 4",
        "Skip\n12 euros",
        "Loose text",
        "- one",
        "A map",
        "| a |\n| --- |\n| b |",
        "Foot",
    ):
        assert text in document.text
    for absent in ("evil", "Bob", "example.com", "**", "title:"):
        assert absent not in document.text


def test_mail_shows_its_headers_and_names_its_attachments(extractor: Extractor) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "周敏 <a@example.com>", "b@example.com", "井盖 repair"
    message["Date"] = "Thu, 13 Mar 2025 09:05:00 +0800"
    message.set_content("Please come.\n\n> old text\n")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="octet-stream", filename="plan.bin")
    document = extractor.parse(message.as_bytes(), media.EML)
    assert document.text == (
        "Subject: 井盖 repair\nFrom: 周敏 <a@example.com>\nTo: b@example.com\n"
        "Date: Thu, 13 Mar 2025 09:05:00 +0800\nAttachments: plan.bin\n\nPlease come.\n\n> old text"
    )
    assert document.title == "井盖 repair"


def test_mail_with_an_html_body_only(extractor: Extractor) -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("<p>Hello&nbsp;there</p><p>Second</p>", subtype="html")
    assert extractor.parse(message.as_bytes(), media.EML).text.split() == [
        "Subject:",
        "x",
        "Hello",
        "there",
        "Second",
    ]


def test_mail_in_a_charset_that_nobody_knows(extractor: Extractor) -> None:
    data = b"Subject: =?no-such?q?x?=\nContent-Type: text/plain; charset=no-such\n\ncaf\xe9\n"
    assert "café" in extractor.parse(data, media.EML).text


def test_json_and_csv_are_text_as_they_are(extractor: Extractor) -> None:
    for media_type in (media.JSON, media.CSV):
        assert extractor.parse(b'{"a": [1,\r\n2]}', media_type).text == '{"a": [1,\n2]}'


def test_image_is_accepted_and_says_that_it_is_not_read(extractor: Extractor) -> None:
    document = extractor.parse(b"\x89PNG\r\n\x1a\nwhatever", media.PNG)
    assert (document.text, document.notes) == ("", (IMAGE_NOTE,))


@pytest.mark.parametrize("data", [b" \n\t ", b"\xef\xbb\xbf"])
def test_blank_text_is_no_failure_but_noted(extractor: Extractor, data: bytes) -> None:
    document = extractor.parse(data, media.TEXT)
    assert (document.text, document.notes) == ("", (NO_TEXT_NOTE,))


def test_office_file_is_read_as_what_it_is_whatever_its_name_said(extractor: Extractor) -> None:
    data = (EXAMPLES / "service-fees.xlsx").read_bytes()
    document = extractor.parse(data, media.DOCX)
    assert document.media_type == media.XLSX
    assert "Pavement cafe" in document.text


def test_protected_office_file_says_so(extractor: Extractor) -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(512)
    with pytest.raises(ParseError, match="password") as caught:
        extractor.parse(data, media.DOCX)
    assert caught.value.code == "encrypted"


def test_zip_with_encrypted_parts_says_so(extractor: Extractor) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "x")
    data = bytearray(file.getvalue())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    with pytest.raises(ParseError) as caught:
        extractor.parse(bytes(data), media.DOCX)
    assert caught.value.code == "encrypted"


@pytest.mark.parametrize("media_type", [media.PDF, media.DOCX, media.XLSX, media.PPTX, media.EPUB, media.ODT])
def test_garbage_is_a_parse_error_with_a_reason(extractor: Extractor, media_type: str) -> None:
    with pytest.raises(ParseError) as caught:
        extractor.parse(b"%PDF-1.4 no, this is nothing at all", media_type)
    assert caught.value.code == "parse_failed"
    assert len(caught.value.message) > 20


def test_a_message_that_is_attached_is_read_behind_its_mail(extractor: Extractor) -> None:
    inner, mail = EmailMessage(), EmailMessage()
    inner["Subject"] = "The dodo"
    inner.set_content("It nests beside the weir.")
    mail["Subject"] = "Forwarded"
    mail.set_content("See below.")
    mail.add_attachment(inner)
    text = extractor.parse(mail.as_bytes(), media.EML).text
    assert text.split("\n\n") == [
        "Subject: Forwarded\nAttachments: The dodo",
        "See below.",
        "Subject: The dodo",
        "It nests beside the weir.",
    ]


@pytest.mark.case(30)
def test_messages_in_messages_without_end_are_refused(extractor: Extractor) -> None:
    with pytest.raises(ParseError, match="nested"):
        extractor.parse(b"Content-Type: message/rfc822\n\n" * 3000 + b"Subject: deep\n\nx", media.EML)
