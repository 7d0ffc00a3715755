"""What a file is: told by its bytes first, by its name and what the sender declared only where bytes leave it open.

`sniff` reads nothing but the head, so it is cheap enough for the door. What only the whole file can tell (an Office
file whose parts lie far from its start) is looked at again where the file is parsed.
"""

import re
from pathlib import PurePath

from penstock.errors import InvalidInput, UnsupportedMedia

HEAD_BYTES = 64 * 1024
"""How much of a file's start `sniff` wants to see (it works with less)."""

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
EPUB = "application/epub+zip"
RTF = "application/rtf"
EML = "message/rfc822"
HTML = "text/html"
MARKDOWN = "text/markdown"
CSV = "text/csv"
JSON = "application/json"
TEXT = "text/plain"
PNG, JPEG, WEBP, TIFF, GIF, BMP = (f"image/{name}" for name in ("png", "jpeg", "webp", "tiff", "gif", "bmp"))

EXTENSIONS = {
    ".pdf": PDF,
    ".docx": DOCX,
    ".pptx": PPTX,
    ".xlsx": XLSX,
    ".odt": ODT,
    ".epub": EPUB,
    ".rtf": RTF,
    ".eml": EML,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".csv": CSV,
    ".tsv": CSV,
    ".json": JSON,
    ".txt": TEXT,
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".webp": WEBP,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".gif": GIF,
    ".bmp": BMP,
}
SUPPORTED = frozenset(EXTENSIONS.values())
IMAGES = frozenset({PNG, JPEG, WEBP, TIFF, GIF, BMP})
OFFICE_XML = frozenset({DOCX, PPTX, XLSX})
ZIPPED = OFFICE_XML | {ODT, EPUB}
WITH_PICTURES = IMAGES | {PDF, DOCX, PPTX}
"""In which pictures are looked for."""
TEXTUAL = frozenset({TEXT, MARKDOWN, CSV, JSON, HTML, EML})
SUPPORTED_NAMES = "PDF, DOCX, PPTX, XLSX, ODT, EPUB, RTF, EML, HTML, Markdown, CSV, JSON, plain text, and images (PNG, JPEG, WEBP, TIFF, GIF, BMP)"  # noqa: E501

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"II+\x00", TIFF),
    (b"MM\x00+", TIFF),
    (b"{\\rtf", RTF),
)
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HTML_START = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:(?><!--.*?-->)\s*+)*+<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_MAIL_START = re.compile(
    rb"(?:(?:from|to|cc|subject|date|received|return-path|delivered-to|message-id|mime-version|content-[a-z-]+|x-[a-z-]+):"
    rb"[^\n]*\n(?:[ \t][^\n]*\n)*){2}",
    re.IGNORECASE,
)
_CONTROL = bytes(range(9)) + b"\x0b" + bytes(range(0x0E, 0x1B)) + bytes(range(0x1C, 0x20)) + b"\x7f"


def sniff(name: str, head: bytes, declared: str | None = None) -> str:
    """The media type of a file, one of `SUPPORTED`.

    `head` is the file's first `HEAD_BYTES` (all of it when it is shorter). Raises `InvalidInput` (`empty_file`) for a
    file without a byte and `UnsupportedMedia` for one that cannot be read.
    """
    if not head:
        raise InvalidInput(
            f"The file {shown_name(name)} is empty (0 bytes). Send a file with content.", code="empty_file"
        )
    hint = EXTENSIONS.get(PurePath(name).suffix.lower()) or _plain_type(declared)
    found = _binary_type(head, hint) or _text_type(head, hint)
    if found is None:
        raise UnsupportedMedia(
            f"The file {shown_name(name)} is of a type that cannot be read. Supported: {SUPPORTED_NAMES}. "
            "Convert it first."
        )
    return found


def archive_kind(name: str, head: bytes) -> str | None:
    """`zip` or `tar` (packed or not) for a file that is to be unpacked; None for one that is a document, or neither.

    A zip is taken for a document where its name or its head says so: Office files are zips too.
    """
    suffix = PurePath(name).suffix.lower()
    if head.startswith((_ZIP, _EMPTY_ZIP)):
        if suffix == ".zip":
            return "zip"
        return None if suffix in EXTENSIONS or _zip_type(head, None) else "zip"
    if head[257:262] == b"ustar" or (suffix == ".tar" and len(head) >= 512):
        return "tar"
    if head.startswith(b"\x1f\x8b") and name.lower().endswith((".tar.gz", ".tgz")):
        return "tar"
    return None


def _plain_type(declared: str | None) -> str | None:
    """A declared Content-Type without its parameters, if it is one that we know."""
    essence = (declared or "").partition(";")[0].strip().lower()
    return essence if essence in SUPPORTED else None


def _binary_type(head: bytes, hint: str | None) -> str | None:
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
    if b"%PDF-" in head[:1024]:
        return PDF
    if head[:2] == b"BM" and hint == BMP:
        return BMP
    if head.startswith(_ZIP):
        return _zip_type(head, hint)
    if head.startswith(_OLE) and hint in OFFICE_XML:
        return hint  # Office wraps a password-protected file in an OLE container; parsing tells which it is
    return None


def _zip_type(head: bytes, hint: str | None) -> str | None:
    """The kind of document in a zip container, by the names of its parts; by the hint where the head shows none."""
    if b"mimetypeapplication/epub+zip" in head[:128]:
        return EPUB
    if b"mimetypeapplication/vnd.oasis.opendocument.text" in head[:128]:
        return ODT
    for part, media_type in ((b"word/", DOCX), (b"ppt/", PPTX), (b"xl/", XLSX)):
        if part in head:
            return media_type
    return hint if hint in ZIPPED else None


def _text_type(head: bytes, hint: str | None) -> str | None:
    """A text type when the bytes can be text; the hint decides which one, unless the text itself is plain about it."""
    if not _looks_textual(head):
        return None
    if hint in TEXTUAL:
        return hint
    if _HTML_START.match(head):
        return HTML
    if _MAIL_START.match(head):
        return EML
    return TEXT


def _looks_textual(head: bytes) -> bool:
    """No more than a stray control byte; UTF-16 and UTF-32 are known by their byte order mark or regular zeros."""
    if head.startswith(_BOMS):
        return True
    if b"\x00" in head:
        return _zeros_are_regular(head)
    return len(head) - len(head.translate(None, _CONTROL)) <= len(head) // 100


def _zeros_are_regular(head: bytes) -> bool:
    """Latin text in UTF-16 or UTF-32 without a mark: one byte of each unit, and only it, is not zero."""
    for width in (2, 4):
        columns = [head[offset::width] for offset in range(width)]
        shares = sorted(column.count(0) / max(1, len(column)) for column in columns)
        if len(head) >= 2 * width and shares[0] == 0 and shares[1] > 0.9:
            return True
    return False


def shown_name(name: str) -> str:
    """A file name fit for messages and logs: quoted, its control characters escaped, cut where it is long."""
    return repr(name if len(name) <= 100 else name[:97] + "...")
