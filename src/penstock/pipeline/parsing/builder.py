"""Puts a document's text together block by block, and keeps where its pages and headings lie."""

from penstock.pipeline.parsing.records import HeadingSpan, PageSpan
from penstock.pipeline.parsing.text import heading_text

SECTION_GAP = "\n\n\n"
"""Before a heading: a longer run of line ends is a stronger boundary to the splitter."""
BLOCK_GAP = "\n\n"
LINE_GAP = "\n"


class TextBuilder:
    """Blocks go in clean (see `text.clean`) and stripped; empty ones leave no trace."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._page = 0
        self._page_starts: list[tuple[int, int]] = []
        self.headings: list[HeadingSpan] = []

    def __len__(self) -> int:
        return self._length

    def page(self, number: int) -> None:
        """What follows is on this page. Pages only go forward: a note set later stays on the page it is read on."""
        self._page = max(self._page, number)

    def block(self, text: str, gap: str = BLOCK_GAP) -> None:
        if text:
            self._add(text, gap)

    def heading(self, level: int, text: str) -> None:
        if text:
            start = self._add(text, SECTION_GAP)
            self.headings.append(HeadingSpan(level=level, text=heading_text(text), start=start, end=self._length))

    def text(self) -> str:
        return "".join(self._parts)

    def pages(self) -> tuple[PageSpan, ...]:
        """The pages that hold text; each reaches to the start of the next."""
        ends = [*(start for _, start in self._page_starts[1:]), self._length][: len(self._page_starts)]
        return tuple(
            PageSpan(number=number, start=start, end=end)
            for (number, start), end in zip(self._page_starts, ends, strict=True)
        )

    def _add(self, text: str, gap: str) -> int:
        if self._parts:
            self._parts.append(gap)
            self._length += len(gap)
        start = self._length
        if self._page and (not self._page_starts or self._page_starts[-1][0] != self._page):
            self._page_starts.append((self._page, start))
        self._parts.append(text)
        self._length += len(text)
        return start
