"""The citation marks in a written answer: [1], 【2】 and [1, 3-4] brought into one form, those of nothing taken out."""

import re

IMAGE_MARK = "[image]"
"""Cites the image of the question."""

_SEPARATORS = r",，、;；\-–－~"
_NUMBERS = rf"\d{{1,3}}(?:\s*[{_SEPARATORS}]\s*\d{{1,3}})*"
_IMAGE = r"(?i:image|picture|图片|图像|图)"
_RANGE = re.compile(r"(\d+)(?:\s*[\-–－~]\s*(\d+))?")
_IMAGE_WORD = re.compile(_IMAGE)
_MAYBE = re.compile(r"[\[【［]|[ \u3000]\Z")
"""Without any of these a text has no mark and begins none."""


def _patterns(content: str, letters: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Whole marks, and what may be the beginning of one at the end of a text."""
    group = rf"[\[【［]\s*{content}\s*[\]】］]"
    unfinished = rf"[ \u3000]*(?:{group})*(?:[\[【［][\d\s{_SEPARATORS}{letters}]{{0,30}})?\Z"
    return re.compile(rf"[ \u3000]*(?:{group})+"), re.compile(unfinished)


_OF_PASSAGES = _patterns(_NUMBERS, "")
_OF_ALL = _patterns(
    rf"(?:{_NUMBERS}|{_IMAGE})(?:\s*[{_SEPARATORS}]\s*(?:{_NUMBERS}|{_IMAGE}))*", "imagectursIMAGECTURS图片像"
)


class CitationMarks:
    """Reads an answer as it streams: `feed` gives its text back with all marks as `[n]`; `cited` has their numbers.

    Only numbers from 1 to `passages` are citations; others vanish, for a reader would look for them in vain. With
    `image` the mark `[image]` is one too. What may be or become a mark is held back until something else follows.
    """

    def __init__(self, passages: int, *, image: bool = False) -> None:
        self._passages = passages
        self._marks, self._unfinished = _OF_ALL if image else _OF_PASSAGES
        self._held = ""
        self.cited: dict[int, None] = {}
        self.image_cited = False

    def feed(self, text: str) -> str:
        text = self._held + text
        if not _MAYBE.search(text):
            self._held = ""
            return text
        match = self._unfinished.search(text)
        cut = match.start() if match else len(text)
        self._held = text[cut:]
        return self._marks.sub(self._rewrite, text[:cut])

    def end(self) -> str:
        """What was still held back."""
        held, self._held = self._held, ""
        return self._marks.sub(self._rewrite, held)

    def _rewrite(self, match: re.Match[str]) -> str:
        numbers = [number for number in _expand(match[0]) if 1 <= number <= self._passages]
        marks = [f"[{number}]" for number in dict.fromkeys(numbers)]
        self.cited.update(dict.fromkeys(numbers))
        if _IMAGE_WORD.search(match[0]):
            self.image_cited = True
            marks.append(IMAGE_MARK)
        space = match[0][: len(match[0]) - len(match[0].lstrip(" \u3000"))]
        return space + "".join(marks) if marks else ""


def _expand(numbers: str) -> list[int]:
    expanded: list[int] = []
    for first, last in _RANGE.findall(numbers):
        expanded += range(int(first), min(int(last or first), int(first) + 20) + 1)
    return expanded
