"""How the files of a CLIP model say that it is to be used: two towers into one space, and how images are prepared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from penstock.errors import ConfigError
from penstock.models.recipe import read_json

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "ViT-B/32": "openai/clip-vit-base-patch32",
        "ViT-B/16": "openai/clip-vit-base-patch16",
        "ViT-L/14": "openai/clip-vit-large-patch14",
    }
)
"""What the models are called in the paper (Radford et al. 2021) and by everybody, and where their files are."""

BICUBIC = 3
"""Pillow's number of the only resampling that CLIP models use."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue over the images that CLIP was trained with."""


class TowerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two transformers."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int = 12
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


class TextConfig(TowerConfig, frozen=True, kw_only=True):
    """What a file leaves out is as in ViT-B/32, as in transformers."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    pad_token_id: int = 1


class VisionConfig(TowerConfig, frozen=True, kw_only=True):
    """Images of `image_size` pixels a side, cut into square patches."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32

    @property
    def tokens(self) -> int:
        """One a patch, and one for the whole image."""
        return (self.image_size // self.patch_size) ** 2 + 1


class ImageRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Shorter side to `resize` pixels, the middle `crop` x `crop` of it, then (value / 255 − mean) / std by colour."""

    resize: int
    crop: int
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


class ClipRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the weights."""

    text: TextConfig
    vision: VisionConfig
    images: ImageRecipe
    dimensions: int


def read_clip_recipe(folder: Path) -> ClipRecipe:
    """Read a Hugging Face CLIP checkpoint's folder. Raises ConfigError for what is not supported, DataError."""
    config = read_json(folder / "config.json", dict[str, Any])
    if config.get("model_type") != "clip":
        raise ConfigError(
            f"{folder} is a {config.get('model_type')!r} model. For images name a CLIP model: {', '.join(NAMES)}, or "
            f"a folder or repository with one in the format of Hugging Face."
        )
    try:
        text = msgspec.convert(config.get("text_config") or {}, TextConfig, strict=False)
        vision = msgspec.convert(config.get("vision_config") or {}, VisionConfig, strict=False)
        dimensions = msgspec.convert(config.get("projection_dim", 512), int)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{folder / 'config.json'} is not the configuration of a CLIP model: {error}.") from error
    return ClipRecipe(text=text, vision=vision, images=read_image_recipe(folder, vision), dimensions=dimensions)


def read_image_recipe(folder: Path, vision: VisionConfig) -> ImageRecipe:
    """From `preprocessor_config.json`; without one, as CLIP was trained."""
    file = folder / "preprocessor_config.json"
    told = read_json(file, dict[str, Any]) if file.is_file() else {}
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
    if any(told.get(step, True) is not True for step in steps) or told.get("resample", BICUBIC) != BICUBIC:
        raise ConfigError(f"{file} prepares images in another way than CLIP models do, which is not supported.")
    size = vision.image_size
    recipe = ImageRecipe(
        resize=_side(told.get("size", size), "shortest_edge"),
        crop=_side(told.get("crop_size", size), "height"),
        mean=_three(told.get("image_mean"), MEAN),
        std=_three(told.get("image_std"), STD),
    )
    if recipe.crop != size or recipe.resize < size:
        raise ConfigError(f"{file} makes images of {recipe.crop} pixels a side, but the network takes {size}.")
    return recipe


def _side(told: Any, key: str) -> int:
    """Older files give a number, newer ones a mapping."""
    return int(told.get(key, 0) if isinstance(told, dict) else told)


def _three(told: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    values: Sequence[float] = told if isinstance(told, list) and len(told) == 3 else default
    return float(values[0]), float(values[1]), float(values[2])
