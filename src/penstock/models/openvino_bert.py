"""The BERT family as an OpenVINO graph, straight from a checkpoint's tensors (Devlin et al. 2018, post-norm).

BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and MPNet are one network; what differs is told by a `Layout`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import openvino.opset15 as op
from numpy.typing import NDArray

from penstock.errors import ConfigError
from penstock.models.openvino_graph import Blocks, Node, activation, integers, length_of, mask_bias
from penstock.models.recipe import NetworkConfig
from penstock.models.tensors import TensorFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a family names its tensors, and the little in which its network is its own.

    `prefix` may stand before all names, as in checkpoints with a head. MPNet adds `relative_bias` by distance to the
    attention scores.
    """

    prefix: str = "bert."
    layer: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    mixed: str = "attention.output.dense"
    mixed_norm: str = "attention.output.LayerNorm"
    wide: str = "intermediate.dense"
    narrow: str = "output.dense"
    narrow_norm: str = "output.LayerNorm"
    relative_bias: str | None = None


BERT = Layout()
ROBERTA = replace(BERT, prefix="roberta.")

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "bert": BERT,
        "roberta": ROBERTA,
        "xlm-roberta": ROBERTA,
        "camembert": ROBERTA,
        "mpnet": Layout(
            prefix="mpnet.",
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            mixed="attention.attn.o",
            mixed_norm="attention.LayerNorm",
            relative_bias="encoder.relative_attention_bias.weight",
        ),
        "distilbert": Layout(
            prefix="distilbert.",
            layer="transformer.layer",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            mixed="attention.out_lin",
            mixed_norm="sa_layer_norm",
            wide="ffn.lin1",
            narrow="ffn.lin2",
            narrow_norm="output_layer_norm",
        ),
    }
)


def bert(
    config: NetworkConfig,
    tensors: TensorFile,
    ids: Node,
    mask: Node,
    types: Node | None = None,
    *,
    eight_bits: bool = False,
) -> Node:
    """(B, S) token ids to (B, S, H) token vectors. Raises ConfigError for a family or variant that is not known.

    `types` (B, S) says of each token whether it belongs to the first text of a pair (0) or the second (1).
    `eight_bits`: the weights behind the attention and into the wide layer are in 8 bits. Those of query, key and value
    and out of the wide layer stay: each would cost more nearness than the two together.
    """
    layout = LAYOUTS.get(config.model_type)
    if layout is None:
        raise ConfigError(
            f"Models of the family {config.model_type!r} are not supported; these are: {', '.join(LAYOUTS)}."
        )
    if config.position_embedding_type != "absolute":
        raise ConfigError(f"Position embeddings of type {config.position_embedding_type!r} are not supported.")
    words = "embeddings.word_embeddings.weight"
    blocks = Blocks(
        tensors,
        heads=config.num_attention_heads,
        hidden=config.hidden_size,
        eps=config.layer_norm_eps,
        prefix=layout.prefix if layout.prefix + words in tensors else "",
        eight_bits=eight_bits,
    )
    x = embeddings(blocks, config.first_position, ids, types)
    bias = mask_bias(mask)
    if layout.relative_bias:
        bias = op.add(bias, relative_bias(blocks.array(layout.relative_bias), config, ids))
    for number in range(config.num_hidden_layers):
        x = layer(blocks, layout, f"{layout.layer}.{number}", x, bias, config.hidden_act)
    return x


def embeddings(blocks: Blocks, first: int, ids: Node, types: Node | None) -> Node:
    """Words plus positions from `first` on plus, where the family has them, types: 0 for a text that stands alone."""
    positions = op.slice(
        blocks.weight("embeddings.position_embeddings.weight"),
        integers([first]),
        op.add(length_of(ids), integers([first])),
        integers([1]),
        integers([0]),
    )
    x = op.add(blocks.embedding(ids, "embeddings.word_embeddings"), positions)
    if "embeddings.token_type_embeddings.weight" in blocks:
        table = blocks.array("embeddings.token_type_embeddings.weight").astype(np.float32)
        alone = types is None or len(table) == 1
        x = op.add(x, op.constant(table[0]) if alone else op.gather(op.constant(table), types, integers([0])))
    return blocks.layer_norm(x, "embeddings.LayerNorm")


def layer(blocks: Blocks, layout: Layout, name: str, x: Node, bias: Node, act: str) -> Node:
    projections = [f"{name}.{part}" for part in (layout.query, layout.key, layout.value)]
    mixed = blocks.rounded(blocks.self_attention(x, projections, bias), f"{name}.{layout.mixed}")
    x, wide = blocks.norm_and_linear(op.add(mixed, x), f"{name}.{layout.mixed_norm}", f"{name}.{layout.wide}")
    wide = activation(wide, act)
    return blocks.layer_norm(op.add(blocks.linear(wide, f"{name}.{layout.narrow}"), x), f"{name}.{layout.narrow_norm}")


def relative_bias(table: NDArray[np.float32], config: NetworkConfig, ids: Node) -> Node:
    """(1, A, S, S): what a head adds for the distance from one token to another (Song et al. 2020, after T5)."""
    longest = config.max_position_embeddings
    distances = np.arange(-(longest - 1), longest)
    by_distance = op.constant(table.astype(np.float32)[buckets(distances, len(table))])  # (2 · longest − 1, A)
    steps = op.range(
        op.constant(np.int64(0)), op.squeeze(length_of(ids), integers([0])), op.constant(np.int64(1)), "i64"
    )
    apart = op.subtract(op.unsqueeze(steps, integers([0])), op.unsqueeze(steps, integers([1])))
    bias = op.gather(by_distance, op.add(apart, integers([longest - 1])), integers([0]))
    return op.unsqueeze(op.transpose(bias, integers([2, 0, 1])), integers([0]))


def buckets(distances: NDArray[np.int64], count: int, furthest: int = 128) -> NDArray[np.int64]:
    """The row of the bias table for a distance key − query: exact when near, logarithmic up to `furthest`."""
    half = count // 2
    near = half // 2
    size = np.abs(distances)
    # In float32 as the models were trained: float64 puts a few distances on the other side of an edge.
    ratio = np.log(np.maximum(size, near).astype(np.float32) / near)
    spread = ratio / np.float32(np.log(furthest / near)) * np.float32(half - near)
    far = np.minimum(near + spread.astype(np.int64), half - 1)
    # A key behind the query (a negative distance) takes the first half of the table.
    return np.where(distances > 0, half, 0) + np.where(size < near, size, far)
