"""Makes the binary example documents from the texts in `sources/`.

    pip install python-docx python-pptx openpyxl typst ebooklib
    python examples/make.py --fonts /usr/share/fonts-droid-fallback     # apt install fonts-droid-fallback

`sources/NAME.pdf.md` becomes `documents/NAME.pdf`, and likewise for docx, pptx and epub; `NAME.xlsx.csv` becomes
`NAME.xlsx`, a line `#sheet TITLE` beginning a sheet. Of Markdown, headings, bullets, tables and bold are understood.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docx
import openpyxl
import pptx
import typst
from ebooklib import epub

HERE = Path(__file__).parent
SOURCES = HERE / "sources"
DOCUMENTS = HERE / "documents"


@dataclass(frozen=True)
class Block:
    """A heading (`level` from 1), a paragraph (level 0), a bullet (level -1) or a table (`rows`)."""

    text: str = ""
    level: int = 0
    rows: tuple[tuple[str, ...], ...] = ()


def blocks(path: Path) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    for line in [*path.read_text("utf-8").splitlines(), ""]:
        if line.startswith("|"):
            if not set(line) <= set("|-"):
                rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
            continue
        if rows:
            yield Block(rows=tuple(rows))
            rows = []
        if match := re.match(r"(#+) (.*)", line):
            yield Block(text=match[2], level=len(match[1]))
        elif line.startswith("- "):
            yield Block(text=line[2:], level=-1)
        elif line:
            yield Block(text=line)


def chinese(path: Path) -> bool:
    return re.search(r"[\u4e00-\u9fff]", path.name) is not None


def make_pdf(source: Path, target: Path, fonts: Path) -> None:
    language = "zh" if chinese(source) else "en"
    out = [
        f'#set text(lang: "{language}", size: 10.5pt, cjk-latin-spacing: none)',
        '#set text(font: ("Libertinus Serif", "Droid Sans Fallback"))',
        '#set page(paper: "a4", margin: 2.2cm, numbering: "1")',
        "#set par(justify: true, leading: 0.8em)",
        "#show heading: set block(above: 1.4em, below: 0.9em)",
    ]
    for block in blocks(source):
        if block.level > 0:
            out.append(f"#heading(level: {block.level}, {json.dumps(block.text, ensure_ascii=False)})")
            continue
        parts = block.text.split("**")
        out.append(
            "".join(
                f"#{'strong' if number % 2 else 'text'}({json.dumps(part, ensure_ascii=False)})"
                for number, part in enumerate(parts)
                if part
            )
        )
    target.write_bytes(typst.compile("\n\n".join(out).encode(), font_paths=[str(fonts)]))


def make_docx(source: Path, target: Path) -> None:
    document = docx.Document()
    for block in blocks(source):
        if block.rows:
            table = document.add_table(rows=0, cols=len(block.rows[0]), style="Table Grid")
            for row in block.rows:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        elif block.level > 0:
            document.add_heading(block.text, level=block.level)
        else:
            document.add_paragraph(block.text, style="List Bullet" if block.level else None)
    document.save(str(target))


def make_pptx(source: Path, target: Path) -> None:
    deck = pptx.Presentation()
    slide = None
    for block in blocks(source):
        if block.level > 0:
            slide = deck.slides.add_slide(deck.slide_layouts[0 if block.level == 1 else 1])
            slide.shapes.title.text = block.text
        elif slide is not None:
            body = slide.placeholders[1].text_frame
            body.text = f"{body.text}\n{block.text}".strip()
    deck.save(str(target))


def make_epub(source: Path, target: Path) -> None:
    book = epub.EpubBook()
    book.set_identifier(f"penstock-example-{source.stem}")
    book.set_language("zh" if chinese(source) else "en")
    chapters: list[epub.EpubHtml] = []
    for block in blocks(source):
        if block.level == 1:
            book.set_title(block.text)
        elif block.level == 2:
            chapter = epub.EpubHtml(title=block.text, file_name=f"chapter{len(chapters) + 1}.xhtml")
            chapter.content = f"<h1>{block.text}</h1>"
            chapters.append(chapter)
        else:
            chapters[-1].content += f"<p>{block.text}</p>"
    for chapter in chapters:
        book.add_item(chapter)
    book.toc = chapters
    book.spine = chapters
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    epub.write_epub(str(target), book)


def make_xlsx(source: Path, target: Path) -> None:
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for row in csv.reader(source.read_text("utf-8").splitlines()):
        if row[0].startswith("#sheet "):
            sheet = workbook.create_sheet(row[0].removeprefix("#sheet "))
        else:
            sheet.append([float(cell) if re.fullmatch(r"\d+(\.\d+)?", cell) else cell for cell in row])
    workbook.save(str(target))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, required=True, help="a folder with DroidSansFallback.ttf")
    fonts = parser.parse_args().fonts
    makers = {".docx": make_docx, ".pptx": make_pptx, ".epub": make_epub, ".xlsx": make_xlsx}
    for source in sorted(SOURCES.iterdir()):
        target = DOCUMENTS / source.stem
        if target.suffix == ".pdf":
            make_pdf(source, target, fonts)
        else:
            makers[target.suffix](source, target)
        print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
