"""Where the headings of a Markdown text stand."""

import re
from collections.abc import Iterator

from penstock.pipeline.parsing.records import HeadingSpan
from penstock.pipeline.parsing.text import heading_text

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
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
                yield HeadingSpan(level=len(atx[1]), text=_title(line[atx.end() :]), start=start, end=start + len(line))
            elif (rule := _SETEXT.match(line)) and not _NO_PARAGRAPH.match(before[1]):
                yield HeadingSpan(
                    level=1 if rule[1][0] == "=" else 2,
                    text=heading_text(before[1]),
                    start=before[0],
                    end=start + len(line),
                )
        before = (start, line)
        start += len(line) + 1


def _title(rest: str) -> str:
    """What stands after the marks of an ATX heading, without the marks that may close it."""
    title = rest.strip()
    open_end = title.rstrip("#")
    return heading_text(open_end if not open_end or open_end[-1] in " \t" else title)
