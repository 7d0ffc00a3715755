"""An image's bytes to the pixels that a CLIP model sees, exactly as `CLIPImageProcessor` of transformers makes them."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from penstock.errors import InvalidInput, TooLarge, UnsupportedMedia
from penstock.models.clip_recipe import ImageRecipe

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

BROKEN = (OSError, ValueError, TypeError, SyntaxError, KeyError, IndexError, OverflowError, struct.error, EOFError)
"""What Pillow's readers raise over broken files."""


def prepare(data: bytes, recipe: ImageRecipe, *, max_pixels: int) -> NDArray[np.uint8]:
    """RGB pixels of the shape (crop, crop, 3), not yet normalised. Blocking, milliseconds; of an animation the start.

    Raises TooLarge before anything is decoded, UnsupportedMedia, or InvalidInput for a damaged file.
    """
    try:
        # Pillow's own limit only warns below twice its size; ours is checked from the header.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            target = resized(image.size, recipe.resize)
            check(image.size, target, max_pixels)
            small = opaque(image).resize(target, Image.Resampling.BICUBIC)
    except Image.DecompressionBombError as error:
        raise TooLarge(f"The image has far more than {max_pixels:,} pixels. Make it smaller.") from error
    except UnidentifiedImageError as error:
        raise UnsupportedMedia(f"The image is damaged or not one of {', '.join(FORMATS)}.") from error
    except BROKEN as error:
        raise InvalidInput(f"The image is damaged: {' '.join(str(error).split())[:200]}.") from error
    left, top = ((side - recipe.crop) // 2 for side in small.size)
    return np.asarray(small)[top : top + recipe.crop, left : left + recipe.crop]


def opaque(image: Image.Image) -> Image.Image:
    """In RGB; white shines through where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side of `shorter` pixels; an empty image stays empty."""
    width, height = size
    if not width or not height:
        return 0, 0
    longer = int(shorter * max(size) / min(size))
    return (shorter, longer) if width <= height else (longer, shorter)


def check(size: tuple[int, int], target: tuple[int, int], max_pixels: int) -> None:
    if not all(size):
        raise InvalidInput("The image is empty: it has no pixels.")
    if size[0] * size[1] > max_pixels or target[0] * target[1] > max_pixels:
        raise TooLarge(
            f"The image has {size[0]:,} x {size[1]:,} pixels; at most {max_pixels:,} are taken, and none whose sides "
            f"are too unlike. Make it smaller."
        )
