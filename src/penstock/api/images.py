"""Images of questions on their way in: from JSON, a form, a URL or a folder of the server, known by their first bytes
before anything is stored. They are decoded nowhere in this process.
"""

import base64
import binascii
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from penstock.api.state import ApiState
from penstock.errors import InvalidInput, NotFound, TooLarge, UnsupportedMedia
from penstock.pipeline.media import HEAD_BYTES, IMAGES, sniff

_URL: Final = re.compile(r"(?i)https?:")
_SMALL_CHARS: Final = 256 * 1024
_NAME: Final = "image.bmp"
"""Stands for a name: BMP is the one kind that its bytes alone do not tell."""
_PATH_CHARS: Final = 1024


async def store_image(state: ApiState, image: str) -> str:
    """The SHA-256 of an image given as base64, as a `data:` URL, or as an http(s) URL.

    Raises `TooLarge`, `UnsupportedMedia` for what is no image, `InvalidInput`, `FetchFailed`.
    """
    most = state.services.settings.images.max_bytes
    if _URL.match(image):
        fetched = await state.services.fetcher.fetch(image, accept=_image_type, max_bytes=most)
        return await put_image(state, fetched.data)
    if len(image) <= _SMALL_CHARS:
        return await put_image(state, decode_image(image, most))
    data = await anyio.to_thread.run_sync(decode_image, image, most, limiter=state.spool_limiter)
    return await put_image(state, data)


async def store_image_file(state: ApiState, path: str) -> str:
    """The same for a file below the folder that the server's owner has set apart for images."""
    options = state.services.settings.images
    if options.folder is None:
        raise InvalidInput(
            "image_path is switched off on this server (PENSTOCK_IMAGES__FOLDER). Send the image itself."
        )
    read = anyio.to_thread.run_sync(read_below, options.folder, path, options.max_bytes, limiter=state.spool_limiter)
    return await put_image(state, await read)


async def put_image(state: ApiState, data: bytes) -> str:
    """The SHA-256 of an image that is in memory."""
    if len(data) > (most := state.services.settings.images.max_bytes):
        raise _too_large(most)
    if not data:
        raise InvalidInput("The image is empty (0 bytes).")
    _image_type(_NAME, data[:HEAD_BYTES], None)
    return (await state.services.blobs.put(data)).sha256


def decode_image(text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 image, which may come as a `data:` URL. Raises `TooLarge`, `InvalidInput`."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > max_bytes * 3 // 2 + 4:  # line ends included
        raise _too_large(max_bytes)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput("The image is neither valid base64 (or a base64 data: URL) nor an http(s) URL.") from exc


def read_below(folder: Path, path: str, max_bytes: int) -> bytes:
    """The bytes of a regular file below `folder`, through no symbolic link. Raises `NotFound`, `TooLarge`."""
    parts = path.split("/")
    if len(path) > _PATH_CHARS or "\0" in path or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        raise InvalidInput("image_path is a relative path with / between its parts, without . and .. among them.")
    opened: list[int] = []
    try:
        opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        for part in parts[:-1]:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        opened.append(os.open(parts[-1], os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=opened[-1]))
        status = os.fstat(opened[-1])
        if not stat.S_ISREG(status.st_mode):
            raise _no_file()
        if status.st_size > max_bytes:
            raise _too_large(max_bytes)
        with os.fdopen(opened.pop(), "rb") as file:
            return file.read(max_bytes + 1)
    except (OSError, UnicodeError) as exc:
        raise _no_file() from exc
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _image_type(name: str, head: bytes, declared: str | None) -> str:
    with suppress(UnsupportedMedia):  # that would name all that a document may be
        if (media_type := sniff(name, head, declared)) in IMAGES:
            return media_type
    raise UnsupportedMedia("This is no image (PNG, JPEG, WEBP, TIFF, GIF or BMP).")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The image is larger than {max_bytes:,} bytes. Send a smaller one.")


def _no_file() -> NotFound:
    return NotFound("There is no such image in the server's folder of images.")
