"""Loading a CLIP model: its files, its two towers on one device, warm."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from penstock.models.base import Encoder, ModelInfo
from penstock.models.clip_openvino import load_image_tower, load_text_tower
from penstock.models.clip_recipe import NAMES, ClipRecipe, read_clip_recipe
from penstock.models.cost import CostModel
from penstock.models.embedder import Loaded, read_tokenizer, warm_up
from penstock.models.engine import GPU_FITS, GPU_SHAPES, Engine
from penstock.models.image_encoder import ImageEncoder
from penstock.models.options import ImageEmbedderOptions, ModelsOptions
from penstock.models.prefixes import Prefixes
from penstock.models.recipe import NetworkConfig, Pooling, Recipe
from penstock.models.torch_clip import load_torch_clip
from penstock.models.torch_device import find_device
from penstock.models.weights import find_model

WARM_ROWS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedClip:
    """What loading gives: all of it may be made on any thread."""

    texts: Loaded
    images: Engine
    image_cost: CostModel
    recipe: ClipRecipe


def load_clip(name: str, spec: ImageEmbedderOptions, options: ModelsOptions) -> LoadedClip:
    """Find, read, compile and warm the CLIP model that `spec` describes, to be known as `name`. Blocking, seconds.

    Raises MissingDependency, ConfigError or DataError, each saying what to do.
    """
    began = time.monotonic()
    folder = find_model(NAMES.get(spec.model, spec.model), cache_dir=options.cache_dir, download=options.download)
    recipe = read_clip_recipe(folder)
    texts, images = open_towers(folder, recipe, options, wanted=spec.engine)
    image_cost = warm_images(images.encoder, recipe)
    longest = recipe.text.max_position_embeddings
    text_cost = warm_up(texts.encoder, longest, *((GPU_SHAPES, GPU_FITS) if texts.on_gpu else ()))
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    tokenizer.enable_truncation(longest)
    info = ModelInfo(
        name=name,
        kind="clip",
        dimensions=recipe.dimensions,
        max_tokens=longest,
        device=texts.device,
        precision=texts.precision,
        memory_bytes=texts.memory_bytes + images.memory_bytes,
        load_s=time.monotonic() - began,
    )
    loaded = Loaded(
        info=info,
        engine=texts,
        tokenizer=tokenizer,
        tokenizer_file=folder / "tokenizer.json",
        recipe=text_recipe(recipe),
        cost=text_cost,
    )
    return LoadedClip(texts=loaded, images=images, image_cost=image_cost, recipe=recipe)


def text_recipe(recipe: ClipRecipe) -> Recipe:
    """The text tower as the embedder of texts wants it described."""
    text = recipe.text
    network = NetworkConfig(
        model_type="clip_text_model",
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        intermediate_size=text.intermediate_size,
        max_position_embeddings=text.max_position_embeddings,
        pad_token_id=0,  # never seen: a token sees none behind it, and the last one of the text is read
    )
    return Recipe(network=network, pooling=Pooling.CLS, max_tokens=text.max_position_embeddings, prefixes=Prefixes())


def open_towers(folder: Path, recipe: ClipRecipe, options: ModelsOptions, *, wanted: str) -> tuple[Engine, Engine]:
    """Texts and images: torch on a GPU or where asked for, else OpenVINO, which also stands by for a GPU."""
    device = "cpu" if wanted == "openvino" else find_device(options.device)
    if device == "cpu" and wanted != "torch":
        return text_tower(folder, recipe, options), image_tower(folder, recipe, options)
    texts, images = load_torch_clip(folder, recipe, device=device, precision=options.precision, threads=options.threads)
    spare = options.model_copy(update={"precision": "auto"}) if device != "cpu" else None
    return (
        Engine(
            encoder=texts,
            device=device,
            precision=texts.precision,
            memory_bytes=texts.memory_bytes,
            spare=None if spare is None else lambda: text_tower(folder, recipe, spare).encoder,
        ),
        Engine(
            encoder=ImageEncoder(images, tokens=recipe.vision.tokens),
            device=device,
            precision=images.precision,
            memory_bytes=images.memory_bytes,
            spare=None if spare is None else lambda: image_tower(folder, recipe, spare).encoder,
        ),
    )


def text_tower(folder: Path, recipe: ClipRecipe, options: ModelsOptions) -> Engine:
    made = load_text_tower(
        folder, recipe, precision=options.precision, threads=options.threads, cache_dir=options.cache_dir
    )
    return Engine(encoder=made, device="cpu", precision=made.precision, memory_bytes=made.memory_bytes)


def image_tower(folder: Path, recipe: ClipRecipe, options: ModelsOptions) -> Engine:
    """Its file is that of the text tower: the memory is counted there."""
    made = load_image_tower(
        folder, recipe, precision=options.precision, threads=options.threads, cache_dir=options.cache_dir
    )
    encoder = ImageEncoder(made, tokens=recipe.vision.tokens)
    return Engine(encoder=encoder, device="cpu", precision=made.precision, memory_bytes=0)


def warm_images(encoder: Encoder, recipe: ClipRecipe) -> CostModel:
    """Run the usual numbers of images on every stream to have their kernels, and once more to learn what they cost."""
    cost = CostModel()
    side, tokens = recipe.vision.image_size, recipe.vision.tokens
    for rows in WARM_ROWS:
        batch = encoder.collate([np.zeros((side, side, 3), np.uint8)] * rows, tokens, 0)
        for pending in [encoder.start(*batch) for _ in range(encoder.streams)]:
            pending()
        began = time.monotonic()
        encoder.start(*batch)()
        cost.observe(rows, tokens, (time.monotonic() - began) * 1e3)
    cost.fit()
    return cost
