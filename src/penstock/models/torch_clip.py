"""CLIP's two towers in torch, straight from a checkpoint's tensors. The same networks as in `clip_openvino`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import ConfigError
from penstock.models.base import Item, TokenIds
from penstock.models.clip_recipe import ClipRecipe, TowerConfig
from penstock.models.tensors import TensorFile
from penstock.models.torch_device import import_torch, loading, pick_dtype
from penstock.models.torch_encoder import TorchEncoder, precision_of
from penstock.models.torch_packed import Tensor
from penstock.models.weights import WEIGHTS

PROBED_IMAGES = 8


class Tower:
    """One transformer's weights on a device, and its layers."""

    def __init__(
        self, torch: Any, tensors: TensorFile, config: TowerConfig, prefix: str, *, device: str, dtype: Any
    ) -> None:
        self._torch = torch
        self._config = config
        self.device = device
        self.dtype = dtype
        names = [name for name in tensors.names if name.startswith(prefix) and not name.endswith("position_ids")]
        self._weights: Mapping[str, Tensor] = {
            name.removeprefix(prefix): self.put(tensors[name].astype(np.float32)) for name in names
        }

    def put(self, array: Any) -> Tensor:
        return self._torch.from_numpy(np.array(array)).to(self.device, self.dtype)

    @property
    def memory_bytes(self) -> int:
        return sum(weight.numel() * weight.element_size() for weight in self._weights.values())

    def weight(self, name: str) -> Tensor:
        if name not in self._weights:
            raise ConfigError(f"The weights have no tensor {name!r}: they do not fit their config.json.")
        return self._weights[name]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return self._torch.nn.functional.linear(x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self._torch.nn.functional.layer_norm(x, x.shape[-1:], scale, shift, self._config.layer_norm_eps)

    def layers(self, x: Tensor, *, causal: bool) -> Tensor:
        for number in range(self._config.num_hidden_layers):
            name = f"encoder.layers.{number}"
            x = x + self._attention(self.norm(x, f"{name}.layer_norm1"), f"{name}.self_attn", causal=causal)
            y = self.linear(self.norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
            x = x + self.linear(self._activation(y), f"{name}.mlp.fc2")
        return x

    def _attention(self, x: Tensor, name: str, *, causal: bool) -> Tensor:
        rows, length, _ = x.shape
        heads = [
            self.linear(x, f"{name}.{part}_proj")
            .view(rows, length, self._config.num_attention_heads, -1)
            .transpose(1, 2)
            for part in "qkv"
        ]
        mixed = self._torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal)
        return self.linear(mixed.transpose(1, 2).reshape(rows, length, -1), f"{name}.out_proj")

    def _activation(self, x: Tensor) -> Tensor:
        act = self._config.hidden_act
        if act == "quick_gelu":
            return x * self._torch.sigmoid(1.702 * x)
        if act == "gelu":
            return self._torch.nn.functional.gelu(x)
        raise ConfigError(f"The activation {act!r} of this model is not supported.")


def text_run(torch: Any, tensors: TensorFile, _: ClipRecipe, tower: Tower) -> Callable[[Item, TokenIds], Tensor]:
    projection = tower.put(tensors["text_projection.weight"].astype(np.float32))

    def run(ids: Item, mask: TokenIds) -> Tensor:
        told = torch.from_numpy(ids).to(tower.device)
        last = torch.from_numpy(mask.sum(axis=1) - 1).to(tower.device)
        x = torch.nn.functional.embedding(told, tower.weight("embeddings.token_embedding.weight"))
        x = tower.layers(x + tower.weight("embeddings.position_embedding.weight")[: ids.shape[1]], causal=True)
        ending = x[torch.arange(len(x), device=tower.device), last]
        return torch.nn.functional.normalize((tower.norm(ending, "final_layer_norm") @ projection.T).float(), dim=1)

    return run


def image_run(torch: Any, tensors: TensorFile, recipe: ClipRecipe, tower: Tower) -> Callable[[Item, TokenIds], Tensor]:
    projection = tower.put(tensors["visual_projection.weight"].astype(np.float32))
    mean, std = (torch.tensor(told, device=tower.device) * 255 for told in (recipe.images.mean, recipe.images.std))

    def run(pixels: Item, _: TokenIds) -> Tensor:
        image = torch.from_numpy(pixels).to(tower.device)
        image = ((image.float() - mean) / std).permute(0, 3, 1, 2).to(tower.dtype)
        filters = tower.weight("embeddings.patch_embedding.weight")
        patches = torch.nn.functional.conv2d(image, filters, stride=recipe.vision.patch_size).flatten(2).transpose(1, 2)
        whole = tower.weight("embeddings.class_embedding").expand(len(image), 1, -1)
        x = torch.cat([whole, patches], dim=1) + tower.weight("embeddings.position_embedding.weight")
        first = tower.layers(tower.norm(x, "pre_layrnorm"), causal=False)[:, 0]
        return torch.nn.functional.normalize((tower.norm(first, "post_layernorm") @ projection.T).float(), dim=1)

    return run


def load_torch_clip(
    folder: Path, recipe: ClipRecipe, *, device: str, precision: str, threads: int
) -> tuple[TorchEncoder, TorchEncoder]:
    """The towers of texts and of images on `device`. Blocking; raises as `load_torch` does."""
    torch = import_torch()
    if threads:
        torch.set_num_threads(threads)
    dtype = pick_dtype(torch, device, precision)

    def load() -> tuple[TorchEncoder, TorchEncoder]:
        tensors = TensorFile(folder / WEIGHTS)
        made = []
        for config, prefix, run in (
            (recipe.text, "text_model.", text_run),
            (recipe.vision, "vision_model.", image_run),
        ):
            tower = Tower(torch, tensors, config, prefix, device=device, dtype=dtype)
            made.append(
                TorchEncoder(
                    torch,
                    run(torch, tensors, recipe, tower),
                    dimensions=recipe.dimensions,
                    device=device,
                    precision=precision_of(torch, dtype),
                    memory_bytes=tower.memory_bytes,
                )
            )
        texts, images = made
        length = recipe.text.max_position_embeddings
        texts.probe(np.zeros((8, length), np.int32), np.ones((8, length), np.int32), tokens=8 * length)
        side, rows = recipe.vision.image_size, PROBED_IMAGES
        images.probe(
            np.zeros((rows, side, side, 3), np.uint8), np.ones((rows, 1), np.int32), tokens=rows * recipe.vision.tokens
        )
        return texts, images

    return loading(load, folder)
