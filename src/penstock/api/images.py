"""Images that come inside JSON: decoded, and known by their first bytes before anything is stored."""

import base64
import binascii
from typing import Final

from penstock.errors import InvalidInput, TooLarge, UnsupportedMedia
from penstock.pipeline.media import HEAD_BYTES, IMAGES, sniff

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024


def decode_image(text: str) -> bytes:
    """The bytes of a base64 image, which may come as a `data:` URL.

    Raises `TooLarge`, `InvalidInput` for what is not base64, `UnsupportedMedia` for what is no image.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > MAX_IMAGE_BYTES * 4 // 3 + 4:
        raise TooLarge(f"The image is larger than {MAX_IMAGE_BYTES:,} bytes. Send a smaller one.")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput("image_base64 is not valid base64.") from exc
    if sniff("image", data[:HEAD_BYTES]) not in IMAGES:
        raise UnsupportedMedia("image_base64 holds no image (PNG, JPEG, WEBP, TIFF, GIF or BMP).")
    return data
