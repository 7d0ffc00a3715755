"""The pictures in a document, each redrawn as one that is safe to hand on. Runs in a parser process."""

import hashlib
import io
import warnings
from collections.abc import Iterator

import kreuzberg
from PIL import Image

from penstock.errors import ParseError
from penstock.pipeline import media
from penstock.pipeline.parsing.containers import check_container
from penstock.pipeline.parsing.ocr import is_blank
from penstock.pipeline.parsing.pictures import BROKEN, FORMATS, plain_picture
from penstock.pipeline.parsing.records import FoundPicture, PictureSearch

_PAGED = frozenset({media.PDF, media.PPTX})
"""Types whose pages are real ones: of a DOCX the reader says page 1 throughout."""


def find_pictures(data: bytes, media_type: str, search: PictureSearch) -> tuple[FoundPicture, ...]:
    """Those wanted, in the order of the document; the same picture (a logo, say) once, blank ones not at all.

    A picture that cannot be read is passed over, unless it is the document itself. Raises `ParseError`.
    """
    if media_type in media.IMAGES:
        return tuple(_frames(data, search))
    if media_type in media.ZIPPED:
        media_type = check_container(data, media_type)
    found: list[FoundPicture] = []
    seen: set[str] = set()
    for number, page, inner in _inner(data, media_type):
        if len(found) == search.most:
            break
        sha256 = hashlib.sha256(inner).hexdigest()
        if sha256 in seen or search.number not in {None, number}:
            continue
        seen.add(sha256)
        if one := _redrawn(inner, sha256, number, page, search):
            found.append(one)
    return tuple(found)


def _redrawn(data: bytes, sha256: str, number: int, page: int | None, search: PictureSearch) -> FoundPicture | None:
    try:
        picture = plain_picture(data, search.limits, frame=1)
    except ParseError:
        return None
    with Image.open(io.BytesIO(picture.data)) as image:
        if min(image.size) < search.min_side or is_blank(image):
            return None
    return FoundPicture(number=number, page=page, sha256=sha256, picture=picture)


def _frames(data: bytes, search: PictureSearch) -> Iterator[FoundPicture]:
    """The image itself; of a TIFF every page."""
    sha256 = hashlib.sha256(data).hexdigest()
    pages = _page_count(data)
    for number in range(1, min(pages, search.most) + 1):
        if search.number in {None, number}:
            picture = plain_picture(data, search.limits, frame=number)
            page = number if pages > 1 else None
            yield FoundPicture(number=number, page=page, sha256=f"{sha256}.{number}", picture=picture)


def _page_count(data: bytes) -> int:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return int(getattr(image, "n_frames", 1)) if image.format == "TIFF" else 1
    except (*BROKEN, Image.DecompressionBombError):
        return 1  # whoever opens it says what is wrong with it


def _inner(data: bytes, media_type: str) -> Iterator[tuple[int, int | None, bytes]]:
    """Number, page and bytes of each embedded picture."""
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        images=kreuzberg.ImageExtractionConfig(extract_images=True, inject_placeholders=False),
        pages=kreuzberg.PageConfig(extract_pages=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    try:
        result = kreuzberg.extract_bytes_sync(data, media_type, config=config)
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError, OSError) as exc:
        raise ParseError(f"The document's pictures could not be read: {' '.join(str(exc).split())[:300]}") from exc
    for image in result.images or ():
        yield image["image_index"] + 1, image["page_number"] if media_type in _PAGED else None, image["data"]
