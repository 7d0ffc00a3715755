"""Images of strangers, redrawn: upright, small, still, without metadata; everything else refused (case 30)."""

import io
import random
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from penstock.errors import ParseError
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.pipeline.parsing.pictures import plain_picture
from penstock.pipeline.parsing.records import PictureLimits, PlainPicture

LIMITS = PictureLimits(max_pixels=1_000_000, max_side=512, max_bytes=100_000)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def shown(picture: PlainPicture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert image.size == (picture.width, picture.height)
    return image


def grey(image: Image.Image, x: int, y: int) -> int:
    return image.convert("L").tobytes()[y * image.width + x]


def halves(mode: str = "RGB") -> Image.Image:
    """Black on the left, white on the right."""
    image = Image.new("RGB", (80, 40), "white")
    image.paste("black", (0, 0, 40, 40))
    return image.convert(mode)


def code_of(data: bytes, limits: PictureLimits = LIMITS) -> str:
    with pytest.raises(ParseError) as caught:
        plain_picture(data, limits)
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
def test_every_format_comes_out_plain(kind: str) -> None:
    picture = plain_picture(encoded(halves(), kind), LIMITS)
    assert picture.media_type == ("image/jpeg" if kind == "JPEG" else "image/png")
    assert grey(shown(picture), 5, 20) < 10
    assert grey(shown(picture), 75, 20) > 245


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16", "I", "F"])
def test_every_kind_of_pixel_comes_out_as_grey_or_rgb(mode: str) -> None:
    kind = "TIFF" if mode in {"F", "I"} else "PNG"
    image = shown(plain_picture(encoded(halves("L").convert(mode), kind), LIMITS))
    assert image.mode in {"L", "RGB"}
    assert grey(image, 5, 20) < 10
    assert grey(image, 75, 20) > 245


def test_cmyk_comes_out_as_rgb() -> None:
    assert shown(plain_picture(encoded(halves("CMYK"), "JPEG"), LIMITS)).mode == "RGB"


def test_white_shines_through_what_is_transparent() -> None:
    image = shown(plain_picture(encoded(Image.new("RGBA", (10, 10), (0, 0, 0, 0))), LIMITS))
    assert image.getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("orientation", "size", "dark"), [(1, (80, 40), (5, 5)), (6, (40, 80), (5, 5)), (8, (40, 80), (5, 75))]
)
def test_photographs_are_turned_upright(orientation: int, size: tuple[int, int], dark: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = shown(plain_picture(encoded(halves(), "JPEG", exif=exif), LIMITS))
    assert image.size == size
    assert grey(image, *dark) < 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_stays_behind(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "GPS of a secret place"
    image = shown(plain_picture(encoded(halves(), kind, exif=exif), LIMITS))
    assert not image.getexif()
    assert not set(image.info) & {"exif", "icc_profile", "xmp", "comment", "photoshop"}


def test_large_ones_are_made_small() -> None:
    picture = plain_picture(encoded(Image.new("RGB", (1000, 500), "red")), LIMITS)
    assert (picture.width, picture.height) == (512, 256)


def test_noise_becomes_a_jpeg_that_fits() -> None:
    noise = Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(512 * 512 * 3))
    picture = plain_picture(encoded(noise), LIMITS)
    assert picture.media_type == "image/jpeg"
    assert len(picture.data) <= LIMITS.max_bytes


def test_what_cannot_be_made_small_enough_is_refused() -> None:
    noise = Image.frombytes("RGB", (512, 512), random.Random(1).randbytes(512 * 512 * 3))
    limits = PictureLimits(max_pixels=1_000_000, max_side=512, max_bytes=100)
    assert code_of(encoded(noise), limits) == "image_too_large"


@pytest.mark.case(30)
@pytest.mark.parametrize(("kind", "extra"), [("GIF", {}), ("PNG", {}), ("WEBP", {}), ("TIFF", {})])
def test_moving_images_are_refused(kind: str, extra: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "green", "blue")]
    assert code_of(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **extra)) == "animated_image"


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.case(30)
@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (2**31 - 1, 2**31 - 1), (1_000_001, 1)])
def test_too_many_pixels_are_refused_by_the_header(width: int, height: int) -> None:
    assert code_of(png_of(width, height)) == "image_too_large"


@pytest.mark.case(30)
def test_broken_ones_are_refused() -> None:
    whole = encoded(halves(), "JPEG")
    for data in (b"", b"hello", whole[: len(whole) // 2], png_of(100, 100), b"\xff\xd8\xff" + bytes(100), b"GIF89a"):
        assert code_of(data) == "bad_image"


@pytest.mark.case(30)
def test_text_bombs_in_a_png_are_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 80_000_000, zip=True)
    assert code_of(encoded(halves(), pnginfo=info)) == "bad_image"


@pytest.fixture
async def pool() -> AsyncIterator[ParserPool]:
    async with ParserPool(ParsingOptions(processes=1, time_limit_s=60, memory_limit_mb=512)) as pool:
        yield pool


async def test_in_a_process_of_its_own(pool: ParserPool) -> None:
    picture = await pool.redraw(encoded(halves()), limits=LIMITS)
    assert shown(picture).size == (80, 40)
    with pytest.raises(ParseError, match="damaged"):
        await pool.redraw(b"hello", limits=LIMITS)


@pytest.mark.case(30)
async def test_hostile_images_end_in_refusals(pool: ParserPool, shared_data: Path) -> None:
    limits = PictureLimits(max_pixels=50_000_000, max_side=2048, max_bytes=3_000_000)
    codes = set()
    for path in sorted((shared_data / "images" / "hostile").iterdir()):
        try:
            shown(await pool.redraw(path.read_bytes(), limits=limits))
        except ParseError as exc:
            codes.add(exc.code)
    assert codes == {"bad_image", "animated_image", "image_too_large"}
    assert (pool.stats.crashed, pool.stats.timed_out) == (0, 0)


async def test_images_with_text_come_out_readable(pool: ParserPool, shared_data: Path) -> None:
    limits = PictureLimits(max_pixels=50_000_000, max_side=2048, max_bytes=3_000_000)
    for path in sorted((shared_data / "images" / "text").glob("*.*g")):
        with Image.open(path) as image:
            wanted = max(image.size)
        picture = await pool.redraw(path.read_bytes(), limits=limits)
        assert max(shown(picture).size) == min(wanted, 2048)
