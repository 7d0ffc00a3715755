"""kreuzberg's document structure to text: headings, paragraphs, lists, and tables as Markdown, page by page."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.pipeline.parsing.builder import BLOCK_GAP, LINE_GAP, TextBuilder
from penstock.pipeline.parsing.text import clean

PAGE_MARKER = "\n\npenstockpage{page_num}sheet\n\n"
"""What kreuzberg sets at the start of a slide, whose blocks do not all carry a number."""
PAGE_MARK = re.compile(r"penstockpage(\d+)sheet")

Node = Mapping[str, Any]


def write_nodes(nodes: Iterable[Node], builder: TextBuilder) -> None:
    """Every node with text of its own, in the order given."""
    for node in nodes:
        content = node["content"]
        if node.get("page"):
            builder.page(int(node["page"]))
        if mark := PAGE_MARK.fullmatch((content.get("text") or "").strip()):
            builder.page(int(mark[1]))
        else:
            _WRITERS.get(content["node_type"], _write_text)(content, builder)


def node_text(content: Node) -> str:
    """The text of a node: clean, without blanks at the line ends."""
    return "\n".join(line.rstrip() for line in clean(content.get("text") or "").split("\n")).strip()


def table_markdown(grid: Node) -> str:
    """A Markdown table of the rows that hold anything; a cell's own line ends and bars are taken out of the way."""
    rows: dict[int, dict[int, str]] = {}
    for cell in grid["cells"]:
        text = " ".join(clean(cell["content"]).replace("|", "\\|").split())
        if text:
            rows.setdefault(cell["row"], {})[cell["col"]] = text
    if not rows:
        return ""
    width = 1 + max(max(row) for row in rows.values())
    lines = [[row.get(column, "") for column in range(width)] for _, row in sorted(rows.items())]
    lines.insert(1, ["---"] * width)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write_text(content: Node, builder: TextBuilder) -> None:
    builder.block(node_text(content))


def _write_heading(content: Node, builder: TextBuilder) -> None:
    builder.heading(int(content.get("level") or 1), node_text(content).replace("\n", " "))


def _write_item(content: Node, builder: TextBuilder) -> None:
    if text := node_text(content):
        builder.block(f"- {text}", LINE_GAP)


def _write_table(content: Node, builder: TextBuilder) -> None:
    builder.block(table_markdown(content["grid"]))


def _write_definition(content: Node, builder: TextBuilder) -> None:
    builder.block(f"{clean(content.get('term') or '')}: {clean(content.get('definition') or '')}".strip(": "))


def _write_entries(content: Node, builder: TextBuilder) -> None:
    """Title, author and the like at the head of a document, one a line."""
    entries: Sequence[Sequence[str]] = content.get("entries") or ()
    lines = (f"{clean(key)}: {' '.join(clean(value).split())}" for key, value in entries if value)
    builder.block("\n".join(lines), BLOCK_GAP)


def _write_nothing(content: Node, builder: TextBuilder) -> None:
    """A container: what it holds comes as nodes of its own."""


_WRITERS: Mapping[str, Callable[[Node, TextBuilder], None]] = {
    "heading": _write_heading,
    "list_item": _write_item,
    "table": _write_table,
    "definition_item": _write_definition,
    "metadata_block": _write_entries,
    "group": _write_nothing,
    "title": lambda content, builder: _write_heading({**content, "level": 1}, builder),
}
