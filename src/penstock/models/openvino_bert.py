"""The BERT family as an OpenVINO graph, straight from a checkpoint's tensors (Devlin et al. 2018, post-norm)."""

import openvino.opset15 as op

from penstock.errors import ConfigError
from penstock.models.openvino_graph import Blocks, Node, activation, integers, length_of, mask_bias
from penstock.models.recipe import NetworkConfig
from penstock.models.tensors import TensorFile


def bert(config: NetworkConfig, tensors: TensorFile, ids: Node, mask: Node) -> Node:
    """(B, S) token ids to (B, S, H) token vectors."""
    if config.position_embedding_type != "absolute":
        raise ConfigError(f"Position embeddings of type {config.position_embedding_type!r} are not supported.")
    blocks = Blocks(
        tensors,
        heads=config.num_attention_heads,
        hidden=config.hidden_size,
        eps=config.layer_norm_eps,
        prefix="bert." if "bert.embeddings.word_embeddings.weight" in tensors else "",
    )
    x = embeddings(blocks, ids)
    bias = mask_bias(mask)
    for number in range(config.num_hidden_layers):
        x = layer(blocks, f"encoder.layer.{number}", x, bias, config.hidden_act)
    return x


def embeddings(blocks: Blocks, ids: Node) -> Node:
    positions = op.slice(
        blocks.weight("embeddings.position_embeddings.weight"),
        integers([0]),
        length_of(ids),
        integers([1]),
        integers([0]),
    )
    # Every token of a text that stands alone is of type 0.
    first_type = op.constant(blocks.array("embeddings.token_type_embeddings.weight")[0])
    words = blocks.embedding(ids, "embeddings.word_embeddings")
    return blocks.layer_norm(op.add(op.add(words, positions), first_type), "embeddings.LayerNorm")


def layer(blocks: Blocks, name: str, x: Node, bias: Node, act: str) -> Node:
    query, key, value = (blocks.linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
    mixed = blocks.linear(blocks.attention(query, key, value, bias), f"{name}.attention.output.dense")
    x = blocks.layer_norm(op.add(mixed, x), f"{name}.attention.output.LayerNorm")
    wide = activation(blocks.linear(x, f"{name}.intermediate.dense"), act)
    return blocks.layer_norm(op.add(blocks.linear(wide, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")
