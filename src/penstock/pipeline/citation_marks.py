"""The citation marks in a written answer: [1], 【2】 and [1, 3-4] brought into one form, those of nothing taken out."""

import re

_SEPARATORS = r",，、;；\-–－~"
_NUMBERS = rf"\d{{1,3}}(?:\s*[{_SEPARATORS}]\s*\d{{1,3}})*"
_GROUP = rf"[\[【［]\s*{_NUMBERS}\s*[\]】］]"
_MARKS = re.compile(rf"[ \u3000]*(?:{_GROUP})+")
_UNFINISHED = re.compile(rf"[ \u3000]*(?:{_GROUP})*(?:[\[【［][\d\s{_SEPARATORS}]{{0,30}})?\Z")
_RANGE = re.compile(r"(\d+)(?:\s*[\-–－~]\s*(\d+))?")


class CitationMarks:
    """Reads an answer as it streams: `feed` gives its text back with all marks as `[n]`; `cited` has their numbers.

    Only numbers from 1 to `passages` are citations; others vanish, for a reader would look for them in vain. What may
    be or become a mark is held back until something else follows.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self.cited: dict[int, None] = {}

    def feed(self, text: str) -> str:
        text = self._held + text
        match = _UNFINISHED.search(text)
        cut = match.start() if match else len(text)
        self._held = text[cut:]
        return _MARKS.sub(self._rewrite, text[:cut])

    def end(self) -> str:
        """What was still held back."""
        held, self._held = self._held, ""
        return _MARKS.sub(self._rewrite, held)

    def _rewrite(self, match: re.Match[str]) -> str:
        numbers = [number for number in _expand(match[0]) if 1 <= number <= self._passages]
        self.cited.update(dict.fromkeys(numbers))
        space = match[0][: len(match[0]) - len(match[0].lstrip(" \u3000"))]
        return space + "".join(f"[{number}]" for number in dict.fromkeys(numbers)) if numbers else ""


def _expand(numbers: str) -> list[int]:
    expanded: list[int] = []
    for first, last in _RANGE.findall(numbers):
        expanded += range(int(first), min(int(last or first), int(first) + 20) + 1)
    return expanded
