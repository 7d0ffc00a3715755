"""A picture as strangers send it to one that a model may be given: checked, turned upright, made small, written anew.

Runs in a parser process. What comes out is a still JPEG or PNG of known size without any of the original's metadata.
"""

import io
import struct
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from penstock.errors import ParseError
from penstock.pipeline.parsing.records import PictureLimits, PlainPicture

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP")
_QUALITIES = (90, 80, 65)
_SMALLEST_SIDE = 64
BROKEN = (OSError, ValueError, TypeError, SyntaxError, KeyError, IndexError, OverflowError, struct.error, EOFError)
"""What Pillow's readers raise over broken files, as seen with fuzzed ones."""


def plain_picture(data: bytes, limits: PictureLimits, *, frame: int | None = None) -> PlainPicture:
    """The image; of one that moves or has several pages the frame (from 1) that is asked for.

    Raises `ParseError`: `bad_image`, `image_too_large` (by its pixels), `animated_image`.
    """
    Image.MAX_IMAGE_PIXELS = None  # ours is checked before anything is decoded, and is not a warning
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if frame is not None and frame > 1:
                image.seek(frame - 1)
            _check(image, limits, still=frame is None)
            image.draft("RGB", (limits.max_side, limits.max_side))
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as exc:
        raise ParseError("The image is damaged or of an unknown kind.", code="bad_image") from exc
    except BROKEN as exc:
        raise ParseError(f"The image is damaged: {' '.join(str(exc).split())[:200]}.", code="bad_image") from exc
    return plain_image(upright, limits, lossless=image.format != "JPEG")


def plain_image(image: Image.Image, limits: PictureLimits, *, lossless: bool = True) -> PlainPicture:
    """The same of an image that is decoded already."""
    still = _flat(image)
    still.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _written(still, limits.max_bytes, lossless=lossless)


def _check(image: Image.Image, limits: PictureLimits, *, still: bool) -> None:
    """By the header alone."""
    width, height = image.size
    if width * height > limits.max_pixels or not width or not height:
        raise ParseError(
            f"The image has {width:,} x {height:,} pixels; at most {limits.max_pixels:,} are taken. Make it smaller.",
            code="image_too_large",
        )
    if still and getattr(image, "is_animated", False):
        raise ParseError("The image is animated or has several pages. Send one still image.", code="animated_image")


def _flat(image: Image.Image) -> Image.Image:
    """In grey or RGB, nothing of it transparent (white shines through), and nothing but pixels."""
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        low, high = image.convert("F").getextrema()
        assert isinstance(low, float)
        assert isinstance(high, float)
        scale = 255 / (high - low) if high > low else 1.0
        image = image.convert("F").point(lambda value: value * scale - low * scale)
        return image.convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        return flat
    flat = image.convert("L" if image.mode in {"1", "L"} else "RGB")
    flat.info.clear()
    return flat


def _written(image: Image.Image, max_bytes: int, *, lossless: bool) -> PlainPicture:
    """As PNG where that keeps a drawing sharp and is small enough, else as JPEG, the worse or smaller the larger."""
    if lossless:
        written = _encode(image, "PNG", optimize=False)
        if len(written) <= max_bytes:
            return _picture(written, "image/png", image)
    while True:
        for quality in _QUALITIES:
            written = _encode(image, "JPEG", quality=quality)
            if len(written) <= max_bytes:
                return _picture(written, "image/jpeg", image)
        width, height = image.size
        if max(width, height) <= _SMALLEST_SIDE:
            raise ParseError("The image cannot be made small enough.", code="image_too_large")
        image = image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.LANCZOS)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def _picture(data: bytes, media_type: str, image: Image.Image) -> PlainPicture:
    return PlainPicture(data=data, media_type=media_type, width=image.width, height=image.height)
