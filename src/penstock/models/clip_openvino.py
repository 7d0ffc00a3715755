"""CLIP's two towers as OpenVINO graphs, straight from a checkpoint's tensors (Radford et al. 2021, pre-norm).

Shapes: B rows, S tokens, H hidden size; images are pixels of the shape (B, side, side, 3), from 0 to 255.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op

from penstock.errors import ConfigError
from penstock.models.clip_recipe import ClipRecipe, ImageRecipe, TowerConfig
from penstock.models.openvino_encoder import Network, OpenVinoEncoder, load_network, text_inputs
from penstock.models.openvino_graph import Blocks, Node, activation, integers
from penstock.models.tensors import TensorFile


def load_text_tower(
    folder: Path, recipe: ClipRecipe, *, precision: str, threads: int, cache_dir: Path
) -> OpenVinoEncoder:
    """Token ids to vectors. Blocking; raises ConfigError or DataError."""
    network = Network(build=lambda tensors: build_text(tensors, recipe), read=refuse_graph, told=f"clip text {recipe}")
    return load_network(folder, network, precision=precision, threads=threads, cache_dir=cache_dir / "clip-text")


def load_image_tower(
    folder: Path, recipe: ClipRecipe, *, precision: str, threads: int, cache_dir: Path
) -> OpenVinoEncoder:
    """Pixels to vectors. Blocking; raises ConfigError or DataError."""
    network = Network(
        build=lambda tensors: build_images(tensors, recipe), read=refuse_graph, told=f"clip images {recipe}"
    )
    return load_network(folder, network, precision=precision, threads=threads, cache_dir=cache_dir / "clip-images")


def refuse_graph(_: Any) -> Any:
    raise ConfigError("Ready graphs of CLIP models are not supported. Use the checkpoint's model.safetensors.")


def build_text(tensors: TensorFile, recipe: ClipRecipe) -> Any:
    """The vector of the last token, which ends every text: it alone has seen the whole of it."""
    config = recipe.text
    ids, mask = text_inputs()
    blocks = blocks_of(tensors, config, "text_model.")
    length = op.gather(op.shape_of(ids), integers([1]), integers([0]))
    positions = op.slice(
        blocks.weight("embeddings.position_embedding.weight"), integers([0]), length, integers([1]), integers([0])
    )
    x = op.add(blocks.embedding(ids, "embeddings.token_embedding"), positions)
    x = layers(blocks, config, x, causal=True)
    last = op.subtract(op.reduce_sum(mask, integers([1])), op.constant(np.int32(1)))
    ending = op.gather(x, last, integers([1]), batch_dims=1)
    return finish(tensors, blocks.layer_norm(ending, "final_layer_norm"), "text_projection", [ids, mask])


def build_images(tensors: TensorFile, recipe: ClipRecipe) -> Any:
    """The vector of the token that stands for the whole image."""
    config = recipe.vision
    side = config.image_size
    pixels = op.parameter([-1, side, side, 3], np.uint8, name="pixels")
    mask = op.parameter([-1, 1], np.int32, name="mask")  # engines take two inputs; this one says nothing
    blocks = blocks_of(tensors, config, "vision_model.")
    filters, step = blocks.weight("embeddings.patch_embedding.weight"), [config.patch_size] * 2
    patches = op.convolution(normalised(pixels, recipe.images), filters, step, [0, 0], [0, 0], [1, 1])
    patches = op.transpose(op.reshape(patches, integers([0, 0, -1]), True), integers([0, 2, 1]))
    rows = op.gather(op.shape_of(pixels), integers([0]), integers([0]))
    whole = op.reshape(blocks.weight("embeddings.class_embedding"), integers([1, 1, -1]), False)
    whole = op.broadcast(whole, op.concat([rows, integers([1, config.hidden_size])], 0))
    x = op.add(op.concat([whole, patches], 1), blocks.weight("embeddings.position_embedding.weight"))
    x = layers(blocks, config, blocks.layer_norm(x, "pre_layrnorm"), causal=False)  # the checkpoints' own spelling
    first = op.gather(x, op.constant(np.int64(0)), integers([1]))
    return finish(tensors, blocks.layer_norm(first, "post_layernorm"), "visual_projection", [pixels, mask])


def blocks_of(tensors: TensorFile, config: TowerConfig, prefix: str) -> Blocks:
    return Blocks(
        tensors,
        heads=config.num_attention_heads,
        hidden=config.hidden_size,
        eps=config.layer_norm_eps,
        prefix=prefix,
    )


def normalised(pixels: Node, recipe: ImageRecipe) -> Node:
    """(B, side, side, 3) of bytes to (B, 3, side, side)."""
    scale = 1 / (255 * np.array(recipe.std))
    shift = np.array(recipe.mean) / np.array(recipe.std)
    x = op.multiply(op.convert(pixels, "f32"), op.constant(scale.astype(np.float32)))
    return op.transpose(op.subtract(x, op.constant(shift.astype(np.float32))), integers([0, 3, 1, 2]))


def layers(blocks: Blocks, config: TowerConfig, x: Node, *, causal: bool) -> Node:
    for number in range(config.num_hidden_layers):
        name = f"encoder.layers.{number}"
        y = blocks.layer_norm(x, f"{name}.layer_norm1")
        parts = (blocks.linear(y, f"{name}.self_attn.{part}_proj") for part in "qkv")
        mixed = blocks.attention(*parts, causal=causal)
        x = op.add(x, blocks.linear(mixed, f"{name}.self_attn.out_proj"))
        y = blocks.linear(blocks.layer_norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        x = op.add(x, blocks.linear(activation(y, config.hidden_act), f"{name}.mlp.fc2"))
    return x


def finish(tensors: TensorFile, pooled: Node, projection: str, inputs: list[Any]) -> Any:
    """Into the space that both towers share; vectors of length 1."""
    weight = op.constant(tensors[f"{projection}.weight"].astype(np.float32))
    vectors = op.normalize_l2(op.matmul(pooled, weight, False, True), integers([1]), 1e-12, "max")
    return ov.Model([vectors], inputs, f"clip {projection}")
