"""Slides come in the order in which they are shown, with the speaker's notes."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from penstock.pipeline import media
from penstock.pipeline.parsing.extract import Extractor

EXAMPLE = Path(__file__).parents[2] / "examples" / "documents" / "site-safety-training.pptx"
NOTES = (
    '<p:notes xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"><p:cSld><p:spTree><p:sp><p:nvSpPr>'
    '<p:cNvPr id="3" name="Notes"/><p:cNvSpPr/><p:nvPr><p:ph type="body" idx="1"/></p:nvPr></p:nvSpPr><p:spPr/>'
    "<p:txBody><a:bodyPr/><a:p><a:r><a:t>Ask who has seen a cone taper.</a:t></a:r></a:p></p:txBody></p:sp>"
    "</p:spTree></p:cSld></p:notes>"
)
RELATION = (
    '<Relationship Id="rIdNotes" Target="../notesSlides/notesSlide1.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/notesSlide"/>'
)


def rewritten(presentation: bytes, change: Callable[[str, bytes], bytes], **more: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(presentation)) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, change(name, before.read(name)))
        for name, part in more.items():
            after.writestr(name, part)
    return out.getvalue()


def with_a_note_on_slide_two(presentation: bytes) -> bytes:
    def related(name: str, part: bytes) -> bytes:
        mine = name == "ppt/slides/_rels/slide2.xml.rels"
        return part.replace(b"</Relationships>", RELATION.encode() + b"</Relationships>") if mine else part

    return rewritten(presentation, related, **{"ppt/notesSlides/notesSlide1.xml": NOTES})


def test_notes_stand_behind_their_slide() -> None:
    plain = EXAMPLE.read_bytes()
    before = Extractor().parse(plain, media.PPTX)
    document = Extractor().parse(with_a_note_on_slide_two(plain), media.PPTX)
    starts = {page.number: page.start for page in document.pages}
    assert document.text[starts[2] : starts[3]].rstrip().endswith("\n\nNotes: Ask who has seen a cone taper.")
    assert document.text.replace("Notes: Ask who has seen a cone taper.", "").split() == before.text.split()


def test_slides_come_in_the_order_in_which_they_are_shown() -> None:
    def moved(name: str, part: bytes) -> bytes:
        if name != "ppt/presentation.xml":
            return part
        first, *others = re.findall(rb"<p:sldId\b[^>]*/>", part)
        return re.sub(
            rb"(<p:sldIdLst>).*(</p:sldIdLst>)", rb"\1" + b"".join([*others, first]) + rb"\2", part, flags=re.DOTALL
        )

    plain = with_a_note_on_slide_two(EXAMPLE.read_bytes())
    before, after = Extractor().parse(plain, media.PPTX), Extractor().parse(rewritten(plain, moved), media.PPTX)
    pages = [[d.text[p.start : p.end].strip() for p in d.pages] for d in (before, after)]
    assert pages[1] == [*pages[0][1:], pages[0][0]]
    assert [page.number for page in after.pages] == [page.number for page in before.pages]
