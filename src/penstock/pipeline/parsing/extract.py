"""One document's bytes to a `ParsedDocument`. Runs in a parser process."""

from dataclasses import replace
from typing import Any

import kreuzberg

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing.base import Parser, markdown_document
from penstock.pipeline.parsing.builder import TextBuilder
from penstock.pipeline.parsing.containers import encrypted
from penstock.pipeline.parsing.html import split_head, write_markdown
from penstock.pipeline.parsing.mail import read_mail
from penstock.pipeline.parsing.pdf import write_pdf_nodes
from penstock.pipeline.parsing.records import ParsedDocument
from penstock.pipeline.parsing.sheets import write_sheets
from penstock.pipeline.parsing.slides import in_order
from penstock.pipeline.parsing.structure import PAGE_MARKER, write_nodes
from penstock.pipeline.parsing.text import clean, decode

IMAGE_NOTE = "No text was found in the image."
NO_TEXT_NOTE = "No text was found in the document: it is empty, or its pages are pictures in which none was found."
_PLAIN = frozenset({media.TEXT, media.CSV, media.JSON})
_ENCRYPTED_WORDS = ("password", "encrypt")


class Extractor(Parser):
    """Holds the configurations of kreuzberg, which are costly to build anew for each document."""

    def __init__(self) -> None:
        self._config = _config()
        self._configs = {
            media.PPTX: _config(insert_page_markers=True, marker_format=PAGE_MARKER),
            **{media_type: _config(structure=False) for media_type in (media.HTML, media.EPUB, media.XLSX)},
        }

    def _parse(self, data: bytes, media_type: str) -> ParsedDocument:
        """Raises `ParseError`: `encrypted`, `parse_failed`."""
        if media_type in media.IMAGES:
            return ParsedDocument(text="", media_type=media_type, notes=(IMAGE_NOTE,))
        document = self._read(data, media_type)
        return document if document.text.strip() else replace(document, text="", notes=(NO_TEXT_NOTE,))

    def _read(self, data: bytes, media_type: str) -> ParsedDocument:
        if media_type in _PLAIN:
            return ParsedDocument(text=clean(decode(data)), media_type=media_type)
        if media_type == media.MARKDOWN:
            return markdown_document(decode(data), media_type)
        if media_type == media.HTML:
            return self._html(data)
        if media_type == media.EML:
            return self._mail(data)
        return self._structured(data, media_type)

    def _html(self, data: bytes) -> ParsedDocument:
        page, title = split_head(data)
        builder = TextBuilder()
        write_markdown(self._run(page.encode(), media.HTML).content, builder)
        return _document(builder, media.HTML, title)

    def _mail(self, data: bytes) -> ParsedDocument:
        mails = read_mail(data)
        builder = TextBuilder()
        for mail in mails:
            builder.block("\n".join(f"{name}: {value}" for name, value in mail.headers))
            if mail.is_html:
                write_markdown(self._run(split_head(mail.body)[0].encode(), media.HTML).content, builder)
            else:
                builder.block(clean(mail.body.decode()).strip())
        return _document(builder, media.EML, dict(mails[0].headers).get("Subject"))

    def _structured(self, data: bytes, media_type: str) -> ParsedDocument:
        result = self._run(data, media_type)
        nodes = (result.document or {}).get("nodes") or ()
        builder = TextBuilder()
        if media_type == media.PDF:
            write_pdf_nodes(nodes, builder, {page["page_number"]: page["content"] for page in result.pages or ()})
        elif media_type == media.XLSX:
            write_sheets(result.content, builder)
        elif media_type == media.EPUB:
            write_markdown(result.content, builder)
        elif media_type == media.PPTX:
            write_nodes(in_order(nodes, data), builder)
        else:
            write_nodes(nodes, builder)
        title = clean(result.metadata.get("title") or "").strip() or None
        return _document(builder, media_type, title, (result.metadata.get("pages") or {}).get("total_count") or 0)

    def _run(self, data: bytes, media_type: str) -> kreuzberg.ExtractionResult:
        try:
            return kreuzberg.extract_bytes_sync(data, media_type, config=self._configs.get(media_type, self._config))
        except (kreuzberg.KreuzbergError, RuntimeError, ValueError, OSError) as exc:
            reason = " ".join(str(exc).split())[:300]
            if any(word in reason.lower() for word in _ENCRYPTED_WORDS):
                raise encrypted() from exc
            raise ParseError(f"The document could not be read as {media_type}: {reason}") from exc


def _config(*, structure: bool = True, **pages: Any) -> kreuzberg.ExtractionConfig:
    """No cache on disk, no text recognition, one thread; running headers and footers stay unless they repeat (what
    kreuzberg takes for one by its place alone is often the first line of the text)."""
    return kreuzberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        enable_quality_processing=False,
        output_format="markdown",
        include_document_structure=structure,
        pages=kreuzberg.PageConfig(extract_pages=True, **pages),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
        content_filter=kreuzberg.ContentFilterConfig(
            include_headers=True, include_footers=True, include_watermarks=True, strip_repeating_text=True
        ),
    )


def _document(builder: TextBuilder, media_type: str, title: str | None, page_count: int = 0) -> ParsedDocument:
    pages = builder.pages()
    return ParsedDocument(
        text=builder.text(),
        media_type=media_type,
        title=title,
        pages=pages,
        page_count=max(page_count, pages[-1].number if pages else 0),
        headings=tuple(builder.headings),
    )
