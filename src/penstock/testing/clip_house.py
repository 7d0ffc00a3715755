"""For tests: a house with a CLIP model, and a collection `pictures` that uses it; pictures to put in."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image, ImageDraw

from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.testing.house import House, open_house
from penstock.types import CollectionOptions


def drawing(colour: str) -> Image.Image:
    image = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(image).ellipse((40, 40, 100, 160), fill=colour)
    return image


def png(colour: str) -> bytes:
    data = io.BytesIO()
    drawing(colour).save(data, "PNG")
    return data.getvalue()


def pdf(*colours: str) -> bytes:
    """One picture a page, and not a word."""
    data = io.BytesIO()
    first, *rest = (drawing(colour) for colour in colours)
    first.save(data, "PDF", save_all=True, append_images=rest)
    return data.getvalue()


@asynccontextmanager
async def open_clip_house(
    folder: Path, *, clip: Path, compiled: Path, index_url: str = "memory://"
) -> AsyncIterator[House]:
    """`clip` is the model's folder, `compiled` where it is kept for the next test. Nobody reads in pictures."""
    options = ModelsOptions.model_validate(
        {"image_embedders": {"clip": {"model": str(clip)}}, "device": "cpu", "precision": "f32", "cache_dir": compiled}
    )
    async with (
        ParserPool(ParsingOptions(processes=1, ocr_languages=())) as parsers,
        open_house(folder, index_url=index_url) as house,
        ModelPool(options) as pool,
    ):
        house.parsers = parsers
        house.images = await pool.image_embedder("clip")
        await house.ledger.create_collection("default", "pictures", CollectionOptions(image_model="clip"))
        yield house
