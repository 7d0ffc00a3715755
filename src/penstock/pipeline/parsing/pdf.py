"""The blocks of a PDF page as running text.

A PDF knows lines and fonts, not paragraphs and headings; kreuzberg guesses these from the layout. Here lines are
joined, hyphenated words made whole, and what it took for a heading but reads like a line of running text becomes that.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from penstock.pipeline.parsing.builder import TextBuilder
from penstock.pipeline.parsing.structure import Node, node_text, write_nodes
from penstock.pipeline.parsing.text import clean

_HYPHENATED = re.compile("[\x02\ufffe\u00ad]\\s*")
"""How pdfium marks a hyphen that stands at a line's end only because the line ends there."""
_WIDE = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_LINE_END_IN_WIDE = re.compile(f"(?<=[{_WIDE}])\n(?=[{_WIDE}])")
_LINE_END_AFTER_HYPHEN = re.compile(r"(?<=\w-)\n(?=\w)")
_FALSE_LIGATURE = re.compile("(ff[il]|f[fil]|t[ti])")
_MISTAKEN = {"ti": ":", "tt": r"\*", "ffi": '"'}
"""What kreuzberg takes for these; other ligatures stand for several marks."""
_TRUE_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl"}
_STRAIGHT = str.maketrans("“”‘’", "\"\"''")
_TEXT_KINDS = {"heading", "paragraph", "list_item"}
_KEY_CHARS = 6
_HEADING_CHARS = 120
_HEADING_CANNOT_END_WITH = (",", ";", "-", "，", "、", "；")
_SENTENCE_ENDS = (".", "!", "?", ":", "。", "！", "？", "：", "”", '"', ")")


@dataclass(frozen=True, slots=True)
class _Block:
    kind: str
    text: str
    page: int
    node: Node


def write_pdf_nodes(nodes: Iterable[Node], builder: TextBuilder, raw_pages: Mapping[int, str]) -> None:
    """`raw_pages` is the text of each page as pdfium gave it."""
    for block in _joined(list(_blocks(nodes, raw_pages))):
        builder.page(block.page)
        if block.kind == "heading":
            builder.heading(int(block.node["content"].get("level") or 1), block.text)
        elif block.kind == "paragraph":
            builder.block(block.text)
        else:
            write_nodes([block.node], builder)


def running_text(raw: str) -> str:
    """The lines of a paragraph as one line; none of CJK text gets a blank where a line ended."""
    text = node_text({"text": _HYPHENATED.sub("", raw.replace("\r\n", "\n"))})
    text = _LINE_END_AFTER_HYPHEN.sub("", _LINE_END_IN_WIDE.sub("", text))
    return " ".join(text.split())


class RawPage:
    """The text of a page as pdfium gave it, to look up what stood there by the characters around it."""

    def __init__(self, raw: str) -> None:
        self._flat = "".join(_HYPHENATED.sub("", raw).translate(_TRUE_LIGATURES).split())
        self._straight = self._flat.translate(_STRAIGHT)

    def restore_ligatures(self, text: str) -> str:
        """Puts back what kreuzberg takes for a broken ligature: `:` between letters becomes "ti", `*` "tt", a quotation
        mark "ffi", `#` and `!` "fi"."""
        parts = _FALSE_LIGATURE.split(text)
        if len(parts) == 1:
            return text
        out = parts[0]
        for found, after in zip(parts[1::2], parts[2::2], strict=True):
            out += self._original(_last_chars(out), found, after.lstrip()[:1]) + after
        return out

    def _original(self, before: str, found: str, after: str) -> str:
        """What is there between the two, which kreuzberg has straightened, if it is a mark and never `found`."""
        before, after = before.translate(_STRAIGHT), after.translate(_STRAIGHT)
        if not before or before + found + after in self._straight:
            return found
        mark = _MISTAKEN.get(found, r"[^\w\s]")
        origin = re.search(f"(?<={re.escape(before)}){mark}(?={re.escape(after)})", self._straight)
        return self._flat[origin.start()] if origin else found


def _last_chars(text: str) -> str:
    return "".join(text[-4 * _KEY_CHARS :].split())[-_KEY_CHARS:]


def _blocks(nodes: Iterable[Node], raw_pages: Mapping[int, str]) -> Iterator[_Block]:
    page, raw = 0, RawPage("")
    for node in nodes:
        content: Any = node["content"]
        if (number := node.get("page") or page) != page:
            page, raw = number, RawPage(raw_pages.get(number, ""))
        kind = content["node_type"]
        if kind in _TEXT_KINDS:
            if text := raw.restore_ligatures(running_text(content["text"])):
                yield _Block(kind, text, page, {"content": {**content, "text": text}})
        elif kind not in {"group", "list", "page_break"}:
            yield _Block(kind, clean(content.get("text") or ""), page, node)


def _joined(blocks: list[_Block]) -> list[_Block]:
    """False headings become paragraphs, and a paragraph that goes on in the next block is joined with it."""
    out: list[_Block] = []
    for block, after in zip_longest(blocks, blocks[1:]):
        current = block
        if block.kind == "heading" and not _reads_like_heading(block, after):
            current = replace(block, kind="paragraph")
        if out and _goes_on(out[-1], current):
            out[-1] = replace(out[-1], text=f"{out[-1].text} {current.text}")
        else:
            out.append(current)
    return out


def _reads_like_heading(block: _Block, after: _Block | None) -> bool:
    goes_on = after is not None and after.kind == "paragraph" and after.text[:1].islower()
    return (
        len(block.text) <= _HEADING_CHARS
        and not block.text[0].islower()
        and not block.text.endswith(_HEADING_CANNOT_END_WITH)
        and not goes_on
    )


def _goes_on(before: _Block, block: _Block) -> bool:
    return (
        before.kind == block.kind == "paragraph"
        and before.page == block.page
        and block.text[0].islower()
        and not before.text.endswith(_SENTENCE_ENDS)
    )
