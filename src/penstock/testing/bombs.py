"""For tests and the benchmark of hostile input: files that are small to send and huge to read."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping

GIGABYTE = 1 << 30
_BLOCK = bytes(1 << 20)
_LOCAL_ENTRY = struct.Struct("<4s5H3L2H")
_CENTRAL_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_W = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_SHEET = b"http://schemas.openxmlformats.org/spreadsheetml/2006"
_RELATIONS = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = b"http://schemas.openxmlformats.org/package/2006/relationships"
_PARAGRAPH = b"<w:p><w:r><w:t>%b</w:t></w:r></w:p>"


def docx(body: bytes, *, doctype: bytes = b"", extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A Word document whose body is given as XML."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(
            "word/document.xml",
            b'<?xml version="1.0"?>%b<w:document %b><w:body>%b</w:body></w:document>' % (doctype, _W, body),
        )
        for name, data in extra:
            archive.writestr(name, data)
    return file.getvalue()


def gigabyte_docx() -> bytes:
    """A part of a gigabyte in a megabyte, honestly declared."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("word/document.xml", "w") as part:
        for _ in range(GIGABYTE // len(_BLOCK)):
            part.write(_BLOCK)
    return file.getvalue()


def lying_docx() -> bytes:
    """A part of 300 MB that its directory calls a thousand bytes."""
    xml = b"<w:document %b><w:body>%b" % (_W, _PARAGRAPH % (b"A" * 1000) * 280_000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", xml)
    return file.getvalue().replace(struct.pack("<L", len(xml)), struct.pack("<L", 1000))


def million_entries() -> bytes:
    """A directory of a million parts, all of them the same empty one; its end says that there are 10."""
    part = _LOCAL_ENTRY.pack(b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    entry = _CENTRAL_ENTRY.pack(b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 1_000_000
    return part + directory + _END.pack(b"PK\5\6", 0, 0, 10, 10, len(directory), len(part), 0)


def nested_docx(depth: int = 40) -> bytes:
    """A document in a document in a document, zeros at its heart."""
    inner = zlib.compress(bytes(50_000_000))
    for _ in range(depth):
        inner = docx(_PARAGRAPH % b"outer", extra=[("word/embeddings/inner.docx", inner)])
    return inner


def billion_laughs() -> bytes:
    entities = b"".join(b'<!ENTITY a%d "%b">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
    return docx(_PARAGRAPH % b"&a9;", doctype=b'<!DOCTYPE l [<!ENTITY a0 "ha">%b]>' % entities)


def quadratic_blowup() -> bytes:
    """One entity of a megabyte, 2,000 times: no nesting for a guard to see."""
    doctype = b'<!DOCTYPE l [<!ENTITY a "%b">]>' % (b"x" * 1_000_000)
    return docx(_PARAGRAPH % (b"&a;" * 2_000), doctype=doctype)


def huge_png() -> bytes:
    """50,000 x 50,000 pixels: 2.5 GB in some 300 KB."""
    packer = zlib.compressobj(9)
    row = bytes(50_001)
    idat = b"".join(packer.compress(row * 100) for _ in range(500)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">LLBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def many_frames() -> bytes:
    """An animation of 10,000 frames, 4,000 x 4,000 pixels each by what it says."""
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 4000, 4000) + b"\x00\x02\x02\x44\x01\x00"
    screen = struct.pack("<HHBBB", 4000, 4000, 0x80, 0, 0) + b"\x00\x00\x00\xff\xff\xff"
    return b"GIF89a" + screen + frame * 10_000 + b"\x3b"


def million_pages() -> bytes:
    """A PDF with a million pages, each of them the same object."""
    kids = b"3 0 R " * 1_000_000
    return b"".join(
        (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n",
            b"2 0 obj<</Type/Pages/Count 1000000/Kids[%b]>>endobj\n" % kids,
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n",
            b"trailer<</Size 4/Root 1 0 R>>\n%%EOF",
        )
    )


def flate_pdf() -> bytes:
    """A page whose content is a gigabyte of drawing orders, packed twice."""
    packer = zlib.compressobj(9)
    orders = b"BT (hello world) Tj ET\n" * 40_000
    packed = zlib.compress(b"".join(packer.compress(orders) for _ in range(1100)) + packer.flush(), 9)
    return b"".join(
        (
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n",
            b"2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj\n",
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n",
            b"4 0 obj<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%b\nendstream endobj\n"
            % (len(packed), packed),
            b"trailer<</Size 5/Root 1 0 R>>\n%%EOF",
        )
    )


def endless_sheet() -> bytes:
    """A workbook with three million cells in one column."""
    cell = b'<row><c t="inlineStr"><is><t>x</t></is></c></row>'
    sheet = b'<worksheet xmlns="%b/main"><sheetData>%b</sheetData></worksheet>' % (_SHEET, cell * 3_000_000)
    workbook = (
        b'<workbook xmlns="%b/main" xmlns:r="%b"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>'
    )
    relation = b'<Relationship Id="r1" Type="%b/worksheet" Target="worksheets/sheet1.xml"/>' % _RELATIONS
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        office = b'<Relationship Id="r0" Type="%b/officeDocument" Target="xl/workbook.xml"/>' % _RELATIONS
        archive.writestr("_rels/.rels", b'<Relationships xmlns="%b">%b</Relationships>' % (_PACKAGE, office))
        archive.writestr("xl/workbook.xml", workbook % (_SHEET, _RELATIONS))
        archive.writestr(
            "xl/_rels/workbook.xml.rels", b'<Relationships xmlns="%b">%b</Relationships>' % (_PACKAGE, relation)
        )
        archive.writestr("xl/worksheets/sheet1.xml", sheet)
    return file.getvalue()


def deep_html() -> bytes:
    return b"<div>" * 2_000_000 + b"deep"


def nested_mail() -> bytes:
    part = b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n'
    return b"Subject: x\n" + b"".join(part % (depth, depth) for depth in range(20_000))


def endless_line() -> bytes:
    """Text without a place to cut at."""
    return ("城市检查规范第三章规定任何建筑物" * 500_000).encode()


BOMBS: Mapping[str, Callable[[], bytes]] = {
    "gigabyte.docx": gigabyte_docx,
    "lying.docx": lying_docx,
    "entries.docx": million_entries,
    "nested.docx": nested_docx,
    "laughs.docx": billion_laughs,
    "quadratic.docx": quadratic_blowup,
    "huge.png": huge_png,
    "frames.gif": many_frames,
    "pages.pdf": million_pages,
    "flate.pdf": flate_pdf,
    "sheet.xlsx": endless_sheet,
    "deep.html": deep_html,
    "nested.eml": nested_mail,
    "line.txt": endless_line,
}
"""By the name that each would be uploaded under. Making one takes up to ten seconds and 300 MB."""
