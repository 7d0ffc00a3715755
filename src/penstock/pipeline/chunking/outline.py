"""Which page and which headings a stretch of text stands under."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from penstock.pipeline.parsing.records import HeadingSpan, PageSpan, ParsedDocument


@dataclass(frozen=True, slots=True)
class Section:
    """From a heading to the next one; `body` is where the heading itself ends. The first may have no heading."""

    start: int
    body: int
    end: int
    path: tuple[str, ...]


class Outline:
    """A document's pages and sections, to be asked by offsets."""

    def __init__(self, document: ParsedDocument) -> None:
        self._text = document.text
        self._pages = document.pages
        self._page_starts = [page.start for page in document.pages]
        self.sections = _sections(document.headings, len(document.text))
        self._section_starts = [section.start for section in self.sections]

    def page(self, start: int) -> int | None:
        """The number of the page that an offset lies on."""
        index = bisect_right(self._page_starts, start) - 1
        return self._pages[max(index, 0)].number if self._pages else None

    def path(self, start: int, end: int) -> tuple[str, ...]:
        """The headings that all text from `start` to `end` stands under, the highest first."""
        first = bisect_right(self._section_starts, start) - 1
        last = max(first, bisect_right(self._section_starts, end - 1) - 1)
        overlapping = self.sections[first : last + 1]
        filled = [section.path for section in overlapping if self._has_body(section, start, end)]
        return _common_prefix(filled or [overlapping[-1].path])

    def page_ranges(self) -> Sequence[tuple[int, int]]:
        """Stretches of one page each that together make up the text; the whole text where there are no pages."""
        return page_ranges(self._pages, len(self._text))

    def _has_body(self, section: Section, start: int, end: int) -> bool:
        return bool(self._text[max(section.body, start) : min(section.end, end)].strip())


def page_ranges(pages: Sequence[PageSpan], length: int) -> Sequence[tuple[int, int]]:
    bounds = sorted({0, length, *(page.start for page in pages)})
    return list(pairwise(bounds))


def _sections(headings: Sequence[HeadingSpan], length: int) -> list[Section]:
    """Sections with the path of their headings: a heading closes all open ones of its level or a lower one."""
    sections = [Section(start=0, body=0, end=headings[0].start if headings else length, path=())]
    open_headings: list[HeadingSpan] = []
    ends = [*(heading.start for heading in headings[1:]), length]
    for heading, end in zip(headings, ends, strict=False):
        open_headings = [above for above in open_headings if above.level < heading.level] + [heading]
        path = tuple(above.text for above in open_headings if above.text)
        sections.append(Section(start=heading.start, body=heading.end, end=end, path=path))
    return sections


def _common_prefix(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    shortest, longest = min(paths), max(paths)
    for index, heading in enumerate(shortest):
        if heading != longest[index]:
            return shortest[:index]
    return shortest
