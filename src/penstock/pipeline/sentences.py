"""Sentences of Chinese and English text, with exact offsets."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SENTENCE_CHARS = 600
"""A longer run without an end (a table, a log) is cut at the last space before this."""

_CLOSERS = r"[\"'”’」』）】》\])]*"
_ITEM = (
    r"(?:[-*•·●▪+#|>]|\d{1,3}[.)、]|[（(][\d一二三四五六七八九十]{1,3}[)）]|第[\d一二三四五六七八九十百]+[章节条]"
    r"|[A-Z][A-Za-z-]{1,20}:[ ]|[\u3400-\u9fff]{1,6}：)"
)
_BOUNDARY = re.compile(
    rf"""
      (?P<full_width>[。！？]+{_CLOSERS})
    | (?P<half_width>[.!?]+{_CLOSERS}(?:\[\d+\])*)(?=\s|[\u3400-\u9fff]|\Z)
    | (?P<line>\n(?=\s*\n|\s*{_ITEM}))
    """,
    re.VERBOSE,
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"'“‘])"
    r"(?:[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Sen|Rep|Gov|Hon|St|Mt|Ft|Jr|Sr|Inc|Ltd"
    r"|Co|Corp|Bros|No|Nos|Art|Sec|Fig|Figs|Eq|Vol|pp?|ca?|vs|etc|al|cf|approx|est|dept|Jan|Feb|Mar|Apr|Jun|Jul|Aug"
    r"|Sept?|Oct|Nov|Dec)\.$"
)
_LIST_NUMBER = re.compile(r"\s*\d{1,3}\.")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s[^\n]*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """`text == source[start:end]`, without white space around it."""

    text: str
    start: int
    end: int


def split_sentences(text: str) -> list[Sentence]:
    """The sentences of `text` in order; what lies between them is white space alone.

    A sentence ends at 。！？, at .!? before white space (not after an abbreviation or an initial, not before a small
    letter), at an empty line, and before a list item, a heading, a table row or a label.
    """
    return [sentence for start, end in _spans(text) for sentence in _pieces(text, start, end)]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _BOUNDARY.finditer(text):
        if match["half_width"] and not _ends(text, start, match):
            continue
        yield start, match.end()
        start = match.end()
    yield start, len(text)


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a full stop really is one."""
    following = text[match.end() : match.end() + 8].lstrip()[:1]
    if following.islower():
        return False
    if match["half_width"] != ".":
        return True
    return not _ABBREVIATION.search(text[max(start, match.end() - 16) : match.end()]) and not _LIST_NUMBER.fullmatch(
        text, start, match.end()
    )


def _pieces(text: str, start: int, end: int) -> Iterator[Sentence]:
    heading = _HEADING.match(text, start, end)
    if heading and heading.end() < end:
        yield from _pieces(text, start, heading.end())
        start = heading.end()
    while end - start > MAX_SENTENCE_CHARS:
        cut = max(text.rfind(mark, start + 1, start + MAX_SENTENCE_CHARS) for mark in " \n；，") + 1
        cut = cut or start + MAX_SENTENCE_CHARS
        yield from _stripped(text, start, cut)
        start = cut
    yield from _stripped(text, start, end)


def _stripped(text: str, start: int, end: int) -> Iterator[Sentence]:
    inner = text[start:end]
    body = inner.strip()
    if body:
        start += len(inner) - len(inner.lstrip())
        yield Sentence(body, start, start + len(body))
