"""Building blocks of encoder networks in OpenVINO's own operations, over the tensors of a weights file.

Shapes: B rows, S tokens, H hidden size, A heads, D = H / A. Token ids and masks are int32 of shape (B, S).
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import openvino.opset15 as op
from numpy.typing import NDArray

from penstock.errors import ConfigError
from penstock.models.recipe import Pooling
from penstock.models.tensors import TensorFile

Node: TypeAlias = Any

MASKED = np.float32(-1e4)
"""Added to the attention scores of padding: far below any real score, and exact in bfloat16's range."""

GROUP = 64
"""Eight-bit weights that share a scale; the engine rounds a token's numbers in groups of as many, each by its largest.

In groups of 64 the default model's passages keep a cosine of 0.9998 to float32 (0.9996 in Chinese, of which it knows
little), texts of one or two words 0.9993; groups of 128 lose half as much again, whole rows four times as much.
"""

ACTIVATIONS = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


def integers(values: Sequence[int]) -> Node:
    return op.constant(np.asarray(values, np.int64))


class Blocks:
    """The blocks of one network. `prefix` stands before every tensor name, `eps` belongs to its layer norms.

    `eight_bits`: the weights of `rounded` and `norm_and_linear` are in 8 bits, where their rows are whole groups.
    """

    def __init__(
        self, tensors: TensorFile, *, heads: int, hidden: int, eps: float, prefix: str = "", eight_bits: bool = False
    ) -> None:
        self._tensors = tensors
        self._eight_bits = eight_bits
        self._heads = integers([0, 0, heads, hidden // heads])
        self._stacked = integers([0, 0, 3, heads, hidden // heads])
        self._hidden = integers([0, 0, hidden])
        self._sharpness = np.float32(1 / np.sqrt(hidden // heads))
        self._eps = eps
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def weight(self, name: str) -> Node:
        """A constant that shares the file's memory; as float32 in the graph, whatever it is in the file."""
        array = self.array(name)
        constant = op.constant(array, shared_memory=True)
        return constant if array.dtype == np.float32 else op.convert(constant, "f32")

    def array(self, name: str) -> NDArray[Any]:
        return self._tensors[self._prefix + name]

    def linear(self, x: Node, name: str) -> Node:
        """x · Wᵀ + b over the last axis."""
        return op.add(op.matmul(x, self.weight(f"{name}.weight"), False, True), self.weight(f"{name}.bias"))

    def rounded(self, x: Node, name: str) -> Node:
        """`linear`, in 8 bits where the network has them."""
        if not self._rounds(name):
            return self.linear(x, name)
        product = op.matmul(x, grouped(self.array(f"{name}.weight")), False, True)
        return op.add(product, self.weight(f"{name}.bias"))

    def _rounds(self, name: str) -> bool:
        return self._eight_bits and self.array(f"{name}.weight").shape[1] % GROUP == 0

    def layer_norm(self, x: Node, name: str) -> Node:
        return self._scaled(self._normal(x), name)

    def norm_and_linear(self, x: Node, norm: str, name: str) -> tuple[Node, Node]:
        """The layer norm of x, and `linear` of that.

        Where the product is in 8 bits, the norm's scale and shift are in its weights and bias instead: the few columns
        that they make large would be all that is left of a group. Without it a text of one word loses twice as much.
        """
        normal = self._normal(x)
        normed = self._scaled(normal, norm)
        if not self._rounds(name):
            return normed, self.linear(normed, name)
        scale, shift = (self.array(part).astype(np.float32) for part in self._norm_names(norm))
        weight = self.array(f"{name}.weight").astype(np.float32)
        bias = self.array(f"{name}.bias").astype(np.float32) + weight @ shift
        return normed, op.add(op.matmul(normal, grouped(weight * scale), False, True), op.constant(bias))

    def _normal(self, x: Node) -> Node:
        return op.mvn(x, integers([-1]), True, self._eps, "inside_sqrt")

    def _scaled(self, normal: Node, name: str) -> Node:
        scale, shift = self._norm_names(name)
        return op.add(op.multiply(normal, self.weight(scale)), self.weight(shift))

    def _norm_names(self, name: str) -> tuple[str, str]:
        """Of scale and shift; checkpoints from TensorFlow call the two gamma and beta."""
        parts = ("weight", "bias") if f"{name}.weight" in self else ("gamma", "beta")
        return f"{name}.{parts[0]}", f"{name}.{parts[1]}"

    def embedding(self, ids: Node, name: str) -> Node:
        return op.gather(self.weight(f"{name}.weight"), ids, integers([0]))

    def self_attention(self, x: Node, names: Sequence[str], bias: Node) -> Node:
        """Scaled dot-product attention of (B, S, H) to itself; `bias` broadcasts to (B, A, S, S).

        `names` are of query, key and value: one product gives all, up to 5 % less work than three, 10 % for a question.
        Its weights are never rounded: 8 bits there cost more nearness than in all other products together. The scale of
        the scores is in the query's: 3 % less work, 7 % for a question.
        """
        weight, shift = (self._stack([f"{name}.{part}" for name in names]) for part in ("weight", "bias"))
        stacked = op.reshape(op.add(op.matmul(x, weight, False, True), shift), self._stacked, True)  # (B, S, 3, A, D)
        parts = op.split(op.transpose(stacked, integers([2, 0, 3, 1, 4])), op.constant(np.int64(0)), 3).outputs()
        scale = op.constant(np.float32(1))
        mixed = op.scaled_dot_product_attention(*(op.squeeze(part, integers([0])) for part in parts), bias, scale)
        return op.reshape(op.transpose(mixed, integers([0, 2, 1, 3])), self._hidden, True)

    def _stack(self, names: Sequence[str]) -> Node:
        """Tensors of query, key and value as one; the first with the scale of the scores in it."""
        query, *others = (self.array(name).astype(np.float32) for name in names)
        return op.constant(np.concatenate([query * self._sharpness, *others]))

    def attention(self, query: Node, key: Node, value: Node, bias: Node = None, *, causal: bool = False) -> Node:
        """Scaled dot-product attention of (B, S, H) projections; `bias` broadcasts to (B, A, S, S).

        `causal`: a token sees itself and those before it.
        """
        heads = [op.transpose(op.reshape(x, self._heads, True), integers([0, 2, 1, 3])) for x in (query, key, value)]
        mixed = op.scaled_dot_product_attention(*heads, bias, causal=causal)
        return op.reshape(op.transpose(mixed, integers([0, 2, 1, 3])), self._hidden, True)


def grouped(weight: NDArray[Any]) -> Node:
    """(N, K) weights in 8 bits with a scale for each `GROUP` of a row; the engine multiplies them as they are."""
    rows, columns = weight.shape
    groups = weight.astype(np.float32).reshape(rows, -1, GROUP)
    scale = np.maximum(np.abs(groups).max(axis=-1, keepdims=True) / 127, np.float32(1e-12))
    rounded = op.convert(op.constant(np.rint(groups / scale).astype(np.int8)), "f32")
    return op.reshape(op.multiply(rounded, op.constant(scale)), integers([rows, columns]), False)


def activation(x: Node, name: str) -> Node:
    if name == "relu":
        return op.relu(x)
    if name == "quick_gelu":
        return op.swish(x, op.constant(np.float32(1.702)))
    if name not in ACTIVATIONS:
        raise ConfigError(f"The activation {name!r} of this model is not supported.")
    return op.gelu(x, ACTIVATIONS[name])


def mask_bias(mask: Node) -> Node:
    """(B, S) of 1 and 0 to the (B, 1, 1, S) bias that hides padding from attention."""
    hidden = op.multiply(op.subtract(op.constant(np.float32(1)), op.convert(mask, "f32")), op.constant(MASKED))
    return op.unsqueeze(hidden, integers([1, 2]))


def length_of(ids: Node) -> Node:
    """S, as a tensor of shape (1,)."""
    return op.gather(op.shape_of(ids), integers([1]), integers([0]))


def pool(tokens: Node, mask: Node, pooling: Pooling) -> Node:
    """(B, S, H) token vectors to (B, H) text vectors of length 1. Padding has no part in it."""
    if pooling is Pooling.CLS:
        pooled = op.gather(tokens, op.constant(np.int64(0)), integers([1]))
    else:
        weight = op.unsqueeze(op.convert(mask, "f32"), integers([-1]))
        total = op.reduce_sum(op.multiply(tokens, weight), integers([1]))
        pooled = op.divide(total, op.maximum(op.reduce_sum(weight, integers([1])), op.constant(np.float32(1e-9))))
    return op.normalize_l2(pooled, integers([1]), 1e-12, "max")
