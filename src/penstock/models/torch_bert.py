"""The BERT family in torch, without padding, straight from a checkpoint's tensors (Devlin et al. 2018, post-norm).

The same families by the same layouts as `openvino_bert`. Shapes as in `torch_packed`; H is the hidden size.
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from penstock.errors import ConfigError
from penstock.models.openvino_bert import LAYOUTS, Layout, buckets
from penstock.models.recipe import NetworkConfig
from penstock.models.tensors import TensorFile
from penstock.models.torch_packed import Packed, Tensor

GELU = MappingProxyType({"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"})


def knows(config: NetworkConfig) -> bool:
    """Whether the network can be built here; others are left to `transformers`."""
    return (
        config.model_type in LAYOUTS
        and config.position_embedding_type == "absolute"
        and config.hidden_act in {*GELU, "relu"}
    )


class TorchBert:
    """The network's weights on a device. Call it with a packed batch for the token vectors (T, H)."""

    def __init__(self, torch: Any, config: NetworkConfig, tensors: TensorFile, *, device: str, dtype: Any) -> None:
        self._torch = torch
        self._config = config
        self._layout = layout = LAYOUTS[config.model_type]
        words = "embeddings.word_embeddings.weight"
        prefix = layout.prefix if layout.prefix + words in tensors else ""
        self._weights = load_weights(torch, layout, config, tensors, prefix, device=device, dtype=dtype)
        self._attend = pick_attention(torch, device=device, dtype=dtype, relative=layout.relative_bias is not None)

    @property
    def memory_bytes(self) -> int:
        return sum(weight.numel() * weight.element_size() for weight in self._weights.values())

    def __call__(self, batch: Packed) -> Tensor:
        config, functional = self._config, self._torch.nn.functional
        weights = self._weights
        x = functional.embedding(batch.ids, weights["words"])
        x = x + functional.embedding(batch.positions, weights["positions"])
        if "types" in weights:
            alone = batch.types is None or len(weights["types"]) == 1
            x = x + (weights["types"][0] if alone else functional.embedding(batch.types, weights["types"]))
        x = self._norm(x, "embeddings.LayerNorm")
        bias = self._bias(batch) if self._layout.relative_bias else None
        for number in range(config.num_hidden_layers):
            x = self._layer(f"{self._layout.layer}.{number}", x, batch, bias)
        return x

    def _layer(self, name: str, x: Tensor, batch: Packed, bias: Tensor | None) -> Tensor:
        layout, config = self._layout, self._config
        projected = self._linear(x, f"{name}.qkv").view(len(x), 3, config.num_attention_heads, -1)
        query, key, value = projected.unbind(1)
        mixed = self._attend(query, key, value, batch, bias).reshape(len(x), -1)
        x = self._norm(self._linear(mixed, f"{name}.{layout.mixed}") + x, f"{name}.{layout.mixed_norm}")
        wide = self._activation(self._linear(x, f"{name}.{layout.wide}"))
        return self._norm(self._linear(wide, f"{name}.{layout.narrow}") + x, f"{name}.{layout.narrow_norm}")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return self._torch.nn.functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale, shift = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._torch.nn.functional.layer_norm(x, x.shape[-1:], scale, shift, self._config.layer_norm_eps)

    def _activation(self, x: Tensor) -> Tensor:
        act = self._config.hidden_act
        functional = self._torch.nn.functional
        return functional.relu(x) if act == "relu" else functional.gelu(x, approximate=GELU[act])

    def _bias(self, batch: Packed) -> Tensor:
        """(1, A, L, L): MPNet's bias by distance."""
        steps = self._torch.arange(batch.longest, device=batch.ids.device)
        apart = steps[None, :] - steps[:, None] + self._config.max_position_embeddings - 1
        return self._weights["relative"][apart].permute(2, 0, 1).unsqueeze(0)


Attend = Callable[[Tensor, Tensor, Tensor, Packed, Tensor | None], Tensor]


def pick_attention(torch: Any, *, device: str, dtype: Any, relative: bool) -> Attend:
    """Over packed tokens where the device has a kernel for that, else over padded ones."""
    if device.startswith("cuda") and dtype != torch.float32 and not relative:
        varlen = varlen_kernel(torch, device)
        if varlen is not None:
            return varlen
    return padded_attention(torch)


def varlen_kernel(torch: Any, device: str) -> Attend | None:
    """Flash attention over packed texts; None where torch or the card has none (it needs Ampere or newer)."""
    try:
        kernel = importlib.import_module("torch.nn.attention.varlen").varlen_attn  # only newer versions have it
    except ImportError:
        return None
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return None

    def attend(query: Tensor, key: Tensor, value: Tensor, batch: Packed, _: Tensor | None) -> Tensor:
        ends, longest = batch.offsets, batch.longest
        # One split: the order of additions, and so the vector, does not depend on the batch.
        return kernel(query, key, value, ends, ends, longest, longest, num_splits=1)

    return attend


def padded_attention(torch: Any) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, batch: Packed, bias: Tensor | None) -> Tensor:
        heads = [batch.padded(x).transpose(1, 2) for x in (query, key, value)]
        if batch.slots is not None:
            hidden = torch.arange(batch.longest, device=query.device) >= batch.lengths[:, None]
            mask = torch.zeros(hidden.shape, device=query.device, dtype=query.dtype)
            mask = mask.masked_fill_(hidden, float("-inf"))[:, None, None, :]
            bias = mask if bias is None else bias + mask
        mixed = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=bias)
        return batch.unpadded(mixed.transpose(1, 2))

    return attend


def load_weights(
    torch: Any, layout: Layout, config: NetworkConfig, tensors: TensorFile, prefix: str, *, device: str, dtype: Any
) -> Mapping[str, Tensor]:
    """The tensors by short names, query, key and value as one, on the device."""

    def put(array: Any) -> Tensor:
        return torch.from_numpy(np.array(array, np.float32)).to(device, dtype)

    def tensor(name: str) -> Any:
        return tensors[prefix + name]

    found = {
        "words": put(tensor("embeddings.word_embeddings.weight")),
        "positions": put(tensor("embeddings.position_embeddings.weight")[config.first_position :]),
    }
    if f"{prefix}embeddings.token_type_embeddings.weight" in tensors:
        found["types"] = put(tensor("embeddings.token_type_embeddings.weight"))
    if layout.relative_bias:
        longest = config.max_position_embeddings
        table = tensor(layout.relative_bias).astype(np.float32)
        found["relative"] = put(table[buckets(np.arange(-(longest - 1), longest), len(table))])
    norms = ["embeddings.LayerNorm"]
    for number in range(config.num_hidden_layers):
        name = f"{layout.layer}.{number}"
        for kind in ("weight", "bias"):
            parts = [tensor(f"{name}.{part}.{kind}") for part in (layout.query, layout.key, layout.value)]
            found[f"{name}.qkv.{kind}"] = put(np.concatenate(parts))
            for part in (layout.mixed, layout.wide, layout.narrow):
                found[f"{name}.{part}.{kind}"] = put(tensor(f"{name}.{part}.{kind}"))
        norms += [f"{name}.{layout.mixed_norm}", f"{name}.{layout.narrow_norm}"]
    for name in norms:
        old = f"{prefix}{name}.gamma" in tensors  # checkpoints from TensorFlow
        found[f"{name}.weight"] = put(tensor(f"{name}.{'gamma' if old else 'weight'}"))
        found[f"{name}.bias"] = put(tensor(f"{name}.{'beta' if old else 'bias'}"))
    check_sizes(found, config)
    return MappingProxyType(found)


def check_sizes(found: Mapping[str, Tensor], config: NetworkConfig) -> None:
    if found["words"].shape != (config.vocab_size, config.hidden_size):
        raise ConfigError(
            f"The weights hold {tuple(found['words'].shape)} word vectors, but config.json says "
            f"{(config.vocab_size, config.hidden_size)}. Get the model's files again."
        )
