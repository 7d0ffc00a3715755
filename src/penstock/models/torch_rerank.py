"""Cross-encoders in torch: the BERT family with a head that gives each pair one number, as in `openvino_rerank`."""

from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import ConfigError
from penstock.models.base import Item, TokenIds
from penstock.models.openvino_bert import LAYOUTS
from penstock.models.openvino_rerank import HEADS
from penstock.models.recipe import PairRecipe
from penstock.models.tensors import TensorFile
from penstock.models.torch_bert import TorchBert, knows
from penstock.models.torch_device import import_torch, loading, pick_dtype
from penstock.models.torch_encoder import PROBE, TorchEncoder, precision_of
from penstock.models.torch_packed import Tensor, pack
from penstock.models.weights import WEIGHTS


def load_torch_pairs(
    folder: Path, recipe: PairRecipe, *, separator: int, device: str, precision: str, threads: int
) -> TorchEncoder:
    """Put the cross-encoder in `folder` on `device`: token ids of pairs to logits of the shape (rows, 1).

    `separator` is the token that ends the query. Blocking; raises as `load_torch` does.
    """
    torch = import_torch()
    if threads:
        torch.set_num_threads(threads)
    if recipe.network.model_type not in HEADS or not knows(recipe.network):
        raise ConfigError(
            f"Cross-encoders of the family {recipe.network.model_type!r} are not supported; these are: "
            f"{', '.join(HEADS)}."
        )
    dtype = pick_dtype(torch, device, precision)
    return loading(lambda: _load(torch, folder, recipe, separator, device, dtype), folder)


def _load(torch: Any, folder: Path, recipe: PairRecipe, separator: int, device: str, dtype: Any) -> TorchEncoder:
    tensors = TensorFile(folder / WEIGHTS)
    network = TorchBert(torch, recipe.network, tensors, device=device, dtype=dtype)
    dense, act, out = HEADS[recipe.network.model_type]
    dense = dense.format(prefix=LAYOUTS[recipe.network.model_type].prefix)
    head = {
        name: torch.from_numpy(np.array(tensors[name], np.float32)).to(device, dtype)
        for name in (f"{dense}.weight", f"{dense}.bias", f"{out}.weight", f"{out}.bias")
    }
    linear, activation = torch.nn.functional.linear, torch.tanh if act == "tanh" else torch.relu

    def run(ids: Item, mask: TokenIds) -> Tensor:
        batch = pack(torch, ids, mask, device, types_of(ids, separator))
        first = network(batch)[batch.offsets[:-1]]
        x = activation(linear(first, head[f"{dense}.weight"], head[f"{dense}.bias"]))
        return linear(x, head[f"{out}.weight"], head[f"{out}.bias"]).float()

    encoder = TorchEncoder(
        torch, run, dimensions=1, device=device, precision=precision_of(torch, dtype), memory_bytes=network.memory_bytes
    )
    shape = PROBE[0], min(PROBE[1], recipe.max_tokens)
    encoder.probe(np.zeros(shape, np.int32), np.ones(shape, np.int32), tokens=shape[0] * shape[1])
    return encoder


def types_of(ids: TokenIds, separator: int) -> TokenIds:
    """0 up to the first separator of a row, 1 behind it."""
    ends = ids == separator
    before: TokenIds = np.minimum(np.cumsum(ends, axis=1) - ends, 1).astype(np.int32)
    return before
