"""A workbook from the Markdown that kreuzberg makes of it.

(Its structure has a record of half a kilobyte for each cell: a sheet of a million cells would not fit into a parser.)
"""

import re

from penstock.pipeline.parsing.builder import TextBuilder
from penstock.pipeline.parsing.text import clean

_SHEET = re.compile(r"^## (.*)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\([\\`*_{}\[\]<>()#+.!~-])")
_BLANK_ROW = re.compile(r"^[| ]*\n", re.MULTILINE)


def write_sheets(markdown: str, builder: TextBuilder) -> None:
    """Each sheet begins with its name as a heading, and counts as a page; its rows are those of a Markdown table."""
    before, *sheets = _SHEET.split(clean(markdown))
    builder.block(_rows(before))
    for number, (name, table) in enumerate(zip(sheets[::2], sheets[1::2], strict=True), start=1):
        builder.page(number)
        builder.heading(2, _ESCAPED.sub(r"\1", name).strip())
        builder.block(_rows(table))


def _rows(table: str) -> str:
    return _BLANK_ROW.sub("", _ESCAPED.sub(r"\1", table)).strip()
