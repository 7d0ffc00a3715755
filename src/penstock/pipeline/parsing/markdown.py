"""Where the headings of a Markdown text stand."""

import re
from collections.abc import Iterator

from penstock.pipeline.parsing.records import HeadingSpan

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NO_PARAGRAPH = re.compile(r"\s*$| {4}|\t| {0,3}(?:[>#|]|[-*+][ \t]|\d+[.)][ \t])")


def find_headings(text: str) -> tuple[HeadingSpan, ...]:
    """ATX (`# …`) and setext (underlined) headings in the order of the text; those in fenced code are none."""
    return tuple(_scan(text))


def _scan(text: str) -> Iterator[HeadingSpan]:
    fence, start = "", 0
    before = (0, "")
    for line in text.split("\n"):
        if mark := _FENCE.match(line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        elif not fence:
            if atx := _ATX.match(line):
                yield _span(len(atx[1]), atx[2] or "", start, line)
            elif (rule := _SETEXT.match(line)) and not _NO_PARAGRAPH.match(before[1]):
                yield HeadingSpan(
                    level=1 if rule[1][0] == "=" else 2, text=before[1].strip(), start=before[0], end=start + len(line)
                )
        before = (start, line)
        start += len(line) + 1


def _span(level: int, title: str, start: int, line: str) -> HeadingSpan:
    return HeadingSpan(level=level, text=title.strip(), start=start, end=start + len(line))
