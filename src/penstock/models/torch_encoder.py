"""The torch engine: cuda, mps or cpu, behind the same contract as every engine."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DataError, MissingDependency, PenstockError, Unavailable
from penstock.models.base import Encoder, Item, Pending, TokenIds
from penstock.models.recipe import Pooling, Recipe
from penstock.models.tensors import TensorFile
from penstock.models.torch_bert import TorchBert, knows
from penstock.models.torch_device import import_torch, loading, mapped, pick_dtype
from penstock.models.torch_packed import Packed, Tensor, pack
from penstock.models.weights import WEIGHTS

SHARE_OF_FREE = 0.8
"""Of the free memory that a batch may take: the rest is for what other models and programs take meanwhile."""

PROBE = (8, 128)
"""Rows and tokens of the batch that shows how much memory a token takes."""

Run = Callable[[Item, TokenIds], Tensor]
"""A collated batch to vectors of length 1 on the device: (N, H), float32."""


class TorchEncoder(Encoder):
    """One network on one device. Kernels are queued and run by themselves; `Pending` waits for the vectors."""

    def __init__(
        self, torch: Any, run: Run, *, dimensions: int, device: str, precision: str, memory_bytes: int
    ) -> None:
        self._torch = torch
        self._run: Run | None = run
        self._dimensions = dimensions
        self._token_bytes = 0
        self.device = device
        self.precision = precision
        self.memory_bytes = memory_bytes

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def start(self, ids: Item, mask: TokenIds) -> Pending:
        if self._run is None:
            raise Unavailable("The model is closed.")
        failure: PenstockError
        try:
            with self._torch.inference_mode():
                return self._hand_over(self._run(ids, mask))
        except RuntimeError as error:
            failure = mapped(error)
        raise failure  # out here, where torch's error and the tensors in its frames are gone

    def _hand_over(self, vectors: Tensor) -> Pending:
        if not self.device.startswith("cuda"):
            done = vectors.cpu().numpy()
            return lambda: done
        torch = self._torch
        host = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        host.copy_(vectors, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()

        def wait() -> NDArray[np.float32]:
            try:
                ready.synchronize()
            except RuntimeError as error:
                raise mapped(error) from None
            return np.array(host.numpy())

        return wait

    def room_tokens(self) -> int | None:
        if not self._token_bytes:
            return None
        free, _ = self._torch.cuda.mem_get_info(self.device)
        free += self._torch.cuda.memory_reserved(self.device) - self._torch.cuda.memory_allocated(self.device)
        return int(free * SHARE_OF_FREE / self._token_bytes)

    def relieve(self) -> None:
        if self.device.startswith("cuda"):
            self._torch.cuda.empty_cache()
        elif self.device == "mps":
            self._torch.mps.empty_cache()

    def probe(self, ids: Item, mask: TokenIds, *, tokens: int) -> None:
        """Run a batch that counts as `tokens` to learn how much memory a token takes. Only cuda tells."""
        if not self.device.startswith("cuda"):
            return
        cuda = self._torch.cuda
        self.start(ids, mask)()  # libraries take their working memory at the first call
        before = cuda.memory_allocated(self.device)
        cuda.reset_peak_memory_stats(self.device)
        self.start(ids, mask)()
        self._token_bytes = max(1, (cuda.max_memory_allocated(self.device) - before) // tokens)

    def close(self) -> None:
        self._run = None
        self.relieve()


def load_torch(folder: Path, recipe: Recipe, *, device: str, precision: str, threads: int) -> TorchEncoder:
    """Put the embedding model in `folder` on `device`. Blocking, up to seconds.

    `precision` is auto, bf16, f16 or f32. Families of BERT's kind run without padding; any other encoder that
    `transformers` knows runs padded, and needs that package. Raises MissingDependency, ConfigError, DataError, or
    OutOfMemory when the device does not hold the weights.
    """
    torch = import_torch()
    if threads:
        torch.set_num_threads(threads)
    dtype = pick_dtype(torch, device, precision)
    return loading(lambda: put_on(torch, folder, recipe, device=device, dtype=dtype), folder)


def put_on(torch: Any, folder: Path, recipe: Recipe, *, device: str, dtype: Any) -> TorchEncoder:
    load = load_known if knows(recipe.network) and (folder / WEIGHTS).is_file() else load_other
    run, memory_bytes = load(torch, folder, recipe, device=device, dtype=dtype)
    encoder = TorchEncoder(
        torch,
        run,
        dimensions=recipe.network.hidden_size,
        device=device,
        precision=precision_of(torch, dtype),
        memory_bytes=memory_bytes,
    )
    shape = PROBE[0], min(PROBE[1], recipe.max_tokens)
    encoder.probe(np.zeros(shape, np.int32), np.ones(shape, np.int32), tokens=shape[0] * shape[1])
    return encoder


def precision_of(torch: Any, dtype: Any) -> str:
    return {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]


def load_known(torch: Any, folder: Path, recipe: Recipe, *, device: str, dtype: Any) -> tuple[Run, int]:
    tensors = TensorFile(folder / WEIGHTS)
    network = TorchBert(torch, recipe.network, tensors, device=device, dtype=dtype)

    def run(ids: Item, mask: TokenIds) -> Tensor:
        batch = pack(torch, ids, mask, device)
        return pool_packed(torch, network(batch), batch, recipe.pooling)

    return run, network.memory_bytes


def pool_packed(torch: Any, tokens: Tensor, batch: Packed, pooling: Pooling) -> Tensor:
    """(T, H) token vectors to (N, H) text vectors of length 1."""
    if pooling is Pooling.CLS:
        pooled = tokens[batch.offsets[:-1]].float()
    else:
        # Summed along one axis of a padded copy: scattered additions would come in another order every time.
        pooled = batch.padded(tokens.float()).sum(dim=1) / batch.lengths[:, None]
    return torch.nn.functional.normalize(pooled, dim=1)


def load_other(torch: Any, folder: Path, recipe: Recipe, *, device: str, dtype: Any) -> tuple[Run, int]:
    """Any encoder of `transformers`, from files alone: no code that comes with a model is ever run."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependency(
            f"Models of the family {recipe.network.model_type!r} need transformers, which is not installed: "
            f'pip install "penstock[torch]".'
        ) from error
    try:
        model = transformers.AutoModel.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except OSError as error:
        raise DataError(f"The model in {folder} cannot be read: {str(error)[:300]}") from error
    model = model.eval().to(device)

    def run(ids: Item, mask: TokenIds) -> Tensor:
        told, hidden = (torch.from_numpy(array).long().to(device) for array in (ids, mask))
        tokens = model(input_ids=told, attention_mask=hidden).last_hidden_state.float()
        if recipe.pooling is Pooling.CLS:
            return torch.nn.functional.normalize(tokens[:, 0], dim=1)
        weight = hidden[:, :, None].float()
        return torch.nn.functional.normalize((tokens * weight).sum(dim=1) / weight.sum(dim=1), dim=1)

    return run, sum(weight.numel() * weight.element_size() for weight in model.parameters())
