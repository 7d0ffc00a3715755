"""HTML: its encoding and title before kreuzberg, the Markdown that kreuzberg makes of it to blocks and headings after.

(kreuzberg's structure of an HTML page leaves out definition lists and loose text in a `<div>`; its Markdown does not.)
"""

import html
import re

from penstock.pipeline.parsing.builder import TextBuilder
from penstock.pipeline.parsing.markdown import find_headings
from penstock.pipeline.parsing.text import clean, decode

_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_CHARSET_WITHIN_BYTES = 4096
_MEANT = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "iso-8859-1": "cp1252",
    "iso-8859-9": "cp1254",
    "latin1": "cp1252",
    "us-ascii": "cp1252",
}
"""What browsers take these labels for (https://encoding.spec.whatwg.org/#names-and-labels)."""
_HEAD_START = re.compile(r"<head\b", re.IGNORECASE)
_HEAD_END = re.compile(r"</head\s*>|(?=<body\b)", re.IGNORECASE)
_TITLE = re.compile(r"<title\b[^>]*>([^<]*)", re.IGNORECASE)
_EMBEDDED = re.compile(r"data:[\w.+/-]+(?:;[\w=-]+)*;base64,[A-Za-z0-9+/=\s%]*")
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)\s]*(?:\s\"[^\"]*\")?\)")
_LINK = re.compile(r"\[([^\[\]]*)\]\([^)\s]*(?:\s\"[^\"]*\")?\)")
_STRONG = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")


def split_head(data: bytes) -> tuple[str, str | None]:
    """The page without its `<head>` (kreuzberg would set what it says at the top of the text) and without
    embedded pictures; and its title."""
    found = _CHARSET.search(data[:_CHARSET_WITHIN_BYTES])
    label = found[1].decode("ascii").lower() if found else None
    page = decode(data, _MEANT.get(label, label) if label else None)
    head, body = _cut_head(page)
    title = _TITLE.search(head or page)
    return _EMBEDDED.sub("", body), (" ".join(html.unescape(title[1]).split()) or None) if title else None


def _cut_head(page: str) -> tuple[str, str]:
    """The `<head>` and the rest; a page whose head has no end is all rest."""
    start = _HEAD_START.search(page)
    end = _HEAD_END.search(page, start.end()) if start else None
    if not start or not end:
        return "", page
    return page[start.start() : end.end()], page[: start.start()] + page[end.end() :]


def write_markdown(markdown: str, builder: TextBuilder) -> None:
    """Headings and what is between them, without the marks of links, images and bold print."""
    text = clean(markdown)
    start = 0
    for heading in find_headings(text):
        builder.block(_plain(text[start : heading.start]))
        builder.heading(heading.level, " ".join(_plain(heading.text).split()))
        start = heading.end
    builder.block(_plain(text[start:]))


def _plain(text: str) -> str:
    return _STRONG.sub(r"\1", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))).strip()
