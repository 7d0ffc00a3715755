"""A tiny CLIP against what transformers made of the same texts and images. `make test-torch` runs it on torch, too."""

import asyncio
import importlib.util
import io
import json
import shutil
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penstock.errors import ConfigError, InvalidInput, TooLarge, UnsupportedMedia
from penstock.models.base import ImageEmbedder, Lane
from penstock.models.clip_recipe import read_clip_recipe
from penstock.models.image_prepare import prepare
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool

CLIP = Path(__file__).parent / "golden" / "clip"
GOLDEN = json.loads((CLIP / "vectors.json").read_text())
TEXTS = [row["text"] for row in GOLDEN["texts"]]
IMAGES = [(CLIP / row["file"]).read_bytes() for row in GOLDEN["images"]]
TEXT_VECTORS, IMAGE_VECTORS = (np.array([row["vector"] for row in GOLDEN[kind]]) for kind in ("texts", "images"))
ENGINES = ["openvino", *(["torch"] if importlib.util.find_spec("torch") else [])]
MAX_PIXELS = 1_000_000


def clip_options(options: ModelsOptions, folder: Path = CLIP, **more: Any) -> ModelsOptions:
    told = {"image_embedders": {"clip": {"model": str(folder), "max_pixels": MAX_PIXELS, **more}}, "precision": "f32"}
    return ModelsOptions.model_validate({**options.model_dump(), **told})


@pytest.fixture(params=ENGINES)
async def clip(request: pytest.FixtureRequest, options: ModelsOptions) -> AsyncIterator[ImageEmbedder]:
    async with ModelPool(clip_options(options, engine=request.param)) as pool:
        yield await pool.image_embedder("clip")


def cosines(found: Any, want: Any) -> Any:
    return (found * want).sum(axis=1)


async def test_texts_have_the_vectors_of_transformers(clip: ImageEmbedder) -> None:
    assert clip.info.kind == "clip"
    assert clip.info.max_tokens == 20
    together = await clip.embed(TEXTS)
    alone = np.concatenate([await clip.embed([text]) for text in TEXTS])
    for found in (together, alone):
        assert cosines(found, TEXT_VECTORS) == pytest.approx(1.0, abs=1e-5)


async def test_images_have_the_vectors_of_transformers(clip: ImageEmbedder) -> None:
    together = await clip.embed_images(IMAGES, lane=Lane.BULK)
    alone = np.concatenate([await clip.embed_images([image]) for image in IMAGES])
    many = await clip.embed_images(IMAGES * 5, lane=Lane.BULK)
    for found in (together, alone, many[: len(IMAGES)], many[-len(IMAGES) :]):
        assert cosines(found, IMAGE_VECTORS) == pytest.approx(1.0, abs=1e-5)
    assert together.dtype == np.float32


async def test_no_images_give_no_vectors(clip: ImageEmbedder) -> None:
    assert (await clip.embed_images([])).shape == (0, clip.info.dimensions)


def test_pixels_are_those_of_transformers() -> None:
    recipe = read_clip_recipe(CLIP).images
    for row, image in zip(GOLDEN["images"], IMAGES, strict=True):
        pixels = prepare(image, recipe, max_pixels=MAX_PIXELS)
        assert pixels.shape == (32, 32, 3)
        normal = (pixels / 255 - recipe.mean) / recipe.std
        assert normal.mean(axis=(0, 1)) == pytest.approx(row["means"], abs=1e-5), row["file"]
        assert normal[3, 5] == pytest.approx(row["first"], abs=1e-5), row["file"]


async def test_a_broken_image_fails_its_call_only(clip: ImageEmbedder) -> None:
    good, bad = await asyncio.gather(
        clip.embed_images(IMAGES), clip.embed_images([IMAGES[0], b"not an image"]), return_exceptions=True
    )
    assert isinstance(bad, UnsupportedMedia)
    assert not isinstance(good, BaseException)
    assert cosines(good, IMAGE_VECTORS) == pytest.approx(1.0, abs=1e-5)


async def test_cancelled_callers_leak_nothing(clip: ImageEmbedder) -> None:
    tasks = [asyncio.create_task(clip.embed_images(IMAGES * 3, lane=Lane.BULK)) for _ in range(30)]
    for task in tasks[::2]:
        await asyncio.sleep(0.001)
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, np.ndarray) for outcome in outcomes[1::2])
    assert cosines(await clip.embed_images(IMAGES), IMAGE_VECTORS) == pytest.approx(1.0, abs=1e-5)


def png(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


@pytest.mark.case(30)
@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(png(50_000, 50_000), TooLarge, id="bomb"),
        pytest.param(png(12_000, 12_000), TooLarge, id="bomb that Pillow only warns of"),
        pytest.param(png(1001, 1000), TooLarge, id="over the limit"),
        pytest.param(saved(Image.new("RGB", (1, 100_000))), TooLarge, id="a line"),
        pytest.param(b"", UnsupportedMedia, id="empty"),
        pytest.param(b"GIF89a", UnsupportedMedia, id="only a start"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedMedia, id="svg"),
        pytest.param(saved(Image.new("RGB", (99, 99)), "PPM"), UnsupportedMedia, id="format that is not taken"),
        pytest.param(png(100, 100), InvalidInput, id="cut short"),
        pytest.param((CLIP / "tall.jpg").read_bytes()[:900], InvalidInput, id="half a JPEG"),
    ],
)
def test_hostile_images_are_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        prepare(data, read_clip_recipe(CLIP).images, max_pixels=MAX_PIXELS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLIP, tmp_path / "clip"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_files_of_older_versions_are_read(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size=32, crop_size=32)
    assert read_clip_recipe(folder) == read_clip_recipe(CLIP)
    (folder / "preprocessor_config.json").unlink()
    assert read_clip_recipe(folder) == read_clip_recipe(CLIP)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "'bert' model"),
        ("config.json", {"text_config": {"hidden_size": "many"}}, "not the configuration of a CLIP model"),
        ("preprocessor_config.json", {"resample": 2}, "another way"),
        ("preprocessor_config.json", {"do_center_crop": False}, "another way"),
        ("preprocessor_config.json", {"crop_size": 64}, "but the network takes 32"),
    ],
)
async def test_what_is_not_supported_is_said(
    folder: Path, options: ModelsOptions, file: str, changes: dict[str, Any], message: str
) -> None:
    edit(folder / file, **changes)
    async with ModelPool(clip_options(options, folder)) as pool:
        with pytest.raises(ConfigError, match=message):
            await pool.image_embedder("clip")


async def test_only_names_of_the_settings_are_loaded(options: ModelsOptions) -> None:
    async with ModelPool(options) as pool:
        with pytest.raises(ConfigError, match="no image embedder 'clip'"):
            await pool.image_embedder("clip")
