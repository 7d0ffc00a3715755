"""Cross-encoders as OpenVINO graphs: the BERT family with a head that gives each pair one number."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op

from penstock.errors import ConfigError
from penstock.models.openvino_bert import LAYOUTS, bert
from penstock.models.openvino_encoder import Network, OpenVinoEncoder, connect, load_network, text_inputs
from penstock.models.openvino_graph import Blocks, Node, integers
from penstock.models.recipe import NetworkConfig, PairRecipe
from penstock.models.tensors import TensorFile

HEADS = {
    "bert": ("{prefix}pooler.dense", "tanh", "classifier"),
    "roberta": ("classifier.dense", "tanh", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "tanh", "classifier.out_proj"),
    "camembert": ("classifier.dense", "tanh", "classifier.out_proj"),
    "mpnet": ("classifier.dense", "tanh", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "relu", "classifier"),
}
"""By family: the tensors and the activation between the first token's vector and the logit."""


def load_cross_encoder(
    folder: Path, recipe: PairRecipe, *, separator: int, precision: str, threads: int, cache_dir: Path
) -> OpenVinoEncoder:
    """Compile the cross-encoder in `folder`: token ids of pairs to logits of the shape (rows, 1).

    `separator` is the token that ends the query. Blocking; raises ConfigError or DataError.
    """
    network = Network(
        build=lambda tensors: build_graph(tensors, recipe.network, separator),
        read=lambda model: read_graph(model, separator),
        told=f"pairs {separator} {recipe}",
    )
    return load_network(folder, network, precision=precision, threads=threads, cache_dir=cache_dir)


def build_graph(tensors: TensorFile, config: NetworkConfig, separator: int) -> Any:
    if config.model_type not in HEADS:
        raise ConfigError(
            f"Cross-encoders of the family {config.model_type!r} are not supported; these are: {', '.join(HEADS)}."
        )
    ids, mask = text_inputs()
    tokens = bert(config, tensors, ids, mask, types_of(ids, separator))
    first = op.gather(tokens, op.constant(np.int64(0)), integers([1]))
    return ov.Model([head(tensors, config, first)], [ids, mask], f"{config.model_type} pairs")


def head(tensors: TensorFile, config: NetworkConfig, first: Node) -> Node:
    """(B, H) vectors of the first token to (B, 1) logits."""
    dense, act, out = HEADS[config.model_type]
    dense = dense.format(prefix=LAYOUTS[config.model_type].prefix)
    blocks = Blocks(tensors, heads=config.num_attention_heads, hidden=config.hidden_size, eps=config.layer_norm_eps)
    x = blocks.linear(first, dense)
    return blocks.linear(op.tanh(x) if act == "tanh" else op.relu(x), out)


def types_of(ids: Node, separator: int) -> Node:
    """(B, S): 0 up to the first separator, 1 behind it."""
    ends = op.convert(op.equal(ids, op.constant(np.int32(separator))), "i32")
    before = op.cumsum(ends, op.constant(np.int32(1)), exclusive=True)
    return op.minimum(before, op.constant(np.int32(1)))


def read_graph(model: Any, separator: int) -> Any:
    """A ready graph that ends in logits of the shape (rows, 1), with our inputs before it."""
    ids, mask = text_inputs()
    connect(model, ids=ids, mask=mask, types=types_of(ids, separator))
    logits = model.get_results()[0].input_value(0)
    shape = logits.get_partial_shape()
    if len(shape) != 2 or (shape[1].is_static and shape[1].get_length() != 1):
        raise ConfigError(f"The ready graph gives {shape} where a cross-encoder gives one number a pair.")
    flat = op.reshape(logits, integers([-1, 1]), False)
    return ov.Model([flat], [ids, mask], "ready pairs")
