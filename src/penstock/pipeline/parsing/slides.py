"""The slides of a presentation in the order in which they are shown, with the speaker's notes.

kreuzberg goes by the numbers in the parts' names, which tell of neither, and leaves notes out of its structure.
"""

import html
import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from penstock.pipeline.parsing.structure import PAGE_MARK, PAGE_MARKER, Node

_MAIN = "ppt/presentation.xml"
_SLIDE = re.compile(r"<p:sldId\b[^>]*\br:id=\"([^\"]+)\"")
_RELATION = re.compile(r"<Relationship\b[^>]*>")
_ATTRIBUTE = re.compile(r"\b(Id|Type|Target)=\"([^\"]*)\"")
_SHAPE = re.compile(r"<p:sp>.*?</p:sp>", re.DOTALL)
_PARAGRAPH = re.compile(r"<a:p>.*?</a:p>", re.DOTALL)
_RUN = re.compile(r"<a:t>([^<]*)</a:t>")


def in_order(nodes: Sequence[Node], data: bytes) -> Iterator[Node]:
    """The nodes by the order in which slides are shown, each slide's followed by its notes; as they are where the file
    does not say, or is damaged there."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            slides = _slides(archive)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, NotImplementedError, EOFError, OSError):
        slides = {}
    groups = _by_mark(nodes)
    if not set(groups) <= set(range(len(slides) + 1)):
        yield from nodes
        return
    yield from groups.get(0, ())
    by_number = sorted(slides, key=_number)
    for position, (part, notes) in enumerate(slides.items(), 1):
        yield _paragraph(PAGE_MARKER.format(page_num=position))
        for node in groups.get(by_number.index(part) + 1, ()):
            yield {**node, "page": None}
        if notes:
            yield _paragraph(f"Notes: {notes}")


def _by_mark(nodes: Iterable[Node]) -> Mapping[int, Sequence[Node]]:
    """What stands behind each mark; kreuzberg goes through the parts by the numbers in their names."""
    groups: dict[int, list[Node]] = {}
    number = 0
    for node in nodes:
        if mark := PAGE_MARK.fullmatch((node["content"].get("text") or "").strip()):
            number = int(mark[1])
        else:
            groups.setdefault(number, []).append(node)
    return groups


def _paragraph(text: str) -> Node:
    return {"content": {"node_type": "paragraph", "text": text.strip()}}


def _number(part: str) -> int:
    digits = re.search(r"(\d+)\.xml$", part)
    return int(digits[1]) if digits else 0


def _slides(archive: zipfile.ZipFile) -> Mapping[str, str]:
    """The parts that are slides, in the order in which they are shown, and their notes."""
    related = _relations(archive, _MAIN, "/slide")
    shown = [related[reference] for reference in _SLIDE.findall(_read(archive, _MAIN)) if reference in related]
    return {part: _notes(archive, part) for part in shown}


def _notes(archive: zipfile.ZipFile, slide: str) -> str:
    parts = _relations(archive, slide, "/notesSlide").values()
    return "\n\n".join(filter(None, (_text(_read(archive, part)) for part in parts)))


def _relations(archive: zipfile.ZipFile, part: str, kind: str) -> Mapping[str, str]:
    """Parts that a part refers to, by the reference; none where it refers to nothing."""
    folder, name = posixpath.split(part)
    listed = f"{folder}/_rels/{name}.rels"
    if listed not in archive.namelist():
        return {}
    relations = (dict(_ATTRIBUTE.findall(one)) for one in _RELATION.findall(_read(archive, listed)))
    return {
        one["Id"]: posixpath.normpath(posixpath.join("/", folder, one["Target"])).lstrip("/")
        for one in relations
        if one["Type"].endswith(kind)
    }


def _text(notes: str) -> str:
    """Of the shape that holds the notes; others hold the slide's picture and number."""
    bodies = (shape for shape in _SHAPE.findall(notes) if 'type="body"' in shape)
    lines = ("".join(_RUN.findall(paragraph)) for body in bodies for paragraph in _PARAGRAPH.findall(body))
    return html.unescape("\n".join(lines)).strip()


def _read(archive: zipfile.ZipFile, part: str) -> str:
    return archive.read(part).decode("utf-8", "replace")
