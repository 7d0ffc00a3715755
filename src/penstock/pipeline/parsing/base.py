"""The contract of a parser, for those that come with Penstock and those that others write."""

from abc import ABC, abstractmethod

from penstock.pipeline import media
from penstock.pipeline.parsing.containers import check_container
from penstock.pipeline.parsing.markdown import find_headings
from penstock.pipeline.parsing.records import ParsedDocument
from penstock.pipeline.parsing.text import clean


class Parser(ABC):
    """Bytes to text. Lives in a parser process: blocking is fine, and so is being killed at any moment.

    It is made once a process and given one document at a time. The process has the limits of the parsing settings on
    time and memory, may write no file larger than a megabyte, and sees those environment variables only that
    `parsing.environment` names. An engine implements `_parse`.
    """

    def parse(self, data: bytes, media_type: str) -> ParsedDocument:
        """Looks into containers (DOCX, XLSX …) before they are unpacked: of which kind they are, and whether bombs.

        Raises `ParseError`, with `encrypted` or `archive_bomb` where it is that.
        """
        return self._parse(data, check_container(data, media_type) if media_type in media.ZIPPED else media_type)

    @abstractmethod
    def _parse(self, data: bytes, media_type: str) -> ParsedDocument:
        """The document's text. Raises `ParseError` with a message for the person who sent it.

        Any other exception fails the document too, as "broke its parser". `text` must be clean (`clean`), `pages` and
        `headings` in its order; `markdown_document` sees to both.
        """


def markdown_document(markdown: str, media_type: str, title: str | None = None) -> ParsedDocument:
    """A document of what most converters give: Markdown, its headings found, its tables kept as they are."""
    text = clean(markdown)
    return ParsedDocument(text=text, media_type=media_type, title=title, headings=find_headings(text))
