"""A look at zip containers (Office, OpenDocument, EPUB) before anything is unpacked."""

import io
import struct
import zipfile

from penstock.errors import ParseError
from penstock.pipeline import media

MAX_ENTRIES = 10_000
MAX_DIRECTORY_BYTES = 4 << 20
MAX_UNPACKED_BYTES = 1 << 30
MAX_RATIO = 200
"""Office XML packs 10- to 50-fold; a bomb of zeros about 1,000-fold."""
_RATIO_COUNTS_FROM_BYTES = 32 << 20
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_END_OF_DIRECTORY = b"PK\x05\x06"
_COUNT_AND_SIZE = struct.Struct("<HI")
_MAIN_PARTS = (
    ("word/document.xml", media.DOCX),
    ("ppt/presentation.xml", media.PPTX),
    ("xl/workbook.xml", media.XLSX),
    ("META-INF/container.xml", media.EPUB),
    ("content.xml", media.ODT),
)


def check_container(data: bytes, media_type: str) -> str:
    """The media type by the parts that the container has.

    Raises `ParseError`: `encrypted`, `archive_bomb` (what its directory declares is beyond all reason; what a lying
    directory hides is stopped by the memory limit), `parse_failed` (damaged).
    """
    if data.startswith(_OLE):
        raise _not_a_zip(data)
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as exc:
        raise ParseError(f"The file is damaged: its zip container cannot be opened ({exc}).") from exc
    _check_sizes(entries, len(data))
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise encrypted()
    names = {entry.filename for entry in entries}
    return next((found for part, found in _MAIN_PARTS if part in names), media_type)


def encrypted() -> ParseError:
    return ParseError(
        "The document is protected by a password. Remove the protection and send it again.", code="encrypted"
    )


def _not_a_zip(data: bytes) -> ParseError:
    if _ENCRYPTED_PACKAGE in data:
        return encrypted()
    return ParseError("The file is in an Office format from before 2007. Save it as DOCX, XLSX or PPTX.")


def _check_directory(data: bytes) -> None:
    """Before the directory itself is read: a million entries cost seconds and gigabytes to list."""
    end = data.rfind(_END_OF_DIRECTORY, max(0, len(data) - 66_000))
    if end < 0 or end + 22 > len(data):
        raise ParseError("The file is damaged: its zip container has no directory. Was it cut off?")
    count, size = _COUNT_AND_SIZE.unpack_from(data, end + 10)
    if count > MAX_ENTRIES or size > MAX_DIRECTORY_BYTES:
        raise _bomb(f"it declares {count:,} parts in a directory of {size:,} bytes")


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    too_much = unpacked > MAX_UNPACKED_BYTES
    too_dense = unpacked > _RATIO_COUNTS_FROM_BYTES and unpacked > MAX_RATIO * packed
    if too_much or too_dense:
        raise _bomb(f"{packed:,} bytes would unpack to {unpacked:,}")


def _bomb(what: str) -> ParseError:
    return ParseError(f"The file looks like an archive bomb: {what}. It was not opened.", code="archive_bomb")
