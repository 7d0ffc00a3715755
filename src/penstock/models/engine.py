"""Which engine runs a local model: OpenVINO on the processor, torch on a GPU and for what OpenVINO cannot."""

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from penstock.errors import ConfigError, OutOfMemory
from penstock.models.base import Encoder
from penstock.models.openvino_bert import LAYOUTS
from penstock.models.openvino_encoder import OpenVinoEncoder, load_encoder
from penstock.models.openvino_rerank import load_cross_encoder
from penstock.models.options import BatcherOptions, ModelsOptions
from penstock.models.recipe import PairRecipe, Recipe
from penstock.models.torch_device import find_device
from penstock.models.torch_encoder import TorchEncoder, load_torch
from penstock.models.torch_rerank import load_torch_pairs
from penstock.models.weights import WEIGHTS, find_ready_graph

logger = logging.getLogger(__name__)

GPU_SHAPES = ((1, 16), (1, 64), (8, 64), (64, 64), (8, 256), (2, 512), (32, 256), (256, 64))
"""Rows and tokens that a GPU is warmed with: its batches are larger."""

GPU_FITS = 4
"""A fit changes no estimate by more than a factor of ten, and a GPU is a hundred times faster than the first guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A network, ready to run. `spare` makes one on the processor for what the device's memory does not hold."""

    encoder: Encoder
    device: str
    precision: str
    memory_bytes: int
    spare: Callable[[], Encoder] | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def batcher(self, options: BatcherOptions) -> BatcherOptions:
        """The options for that device: a GPU takes larger batches, and needs more waiting to fill them."""
        if not self.on_gpu:
            return options
        tokens = options.gpu_batch_tokens
        return options.model_copy(
            update={"batch_tokens": tokens, "queue_tokens": max(options.queue_tokens, 4 * tokens)}
        )


def open_engine(folder: Path, recipe: Recipe, options: ModelsOptions, *, wanted: str = "auto") -> Engine:
    """The engine for the embedding model in `folder`. Blocking, up to seconds.

    `wanted` is auto, openvino or torch. Raises MissingDependency, ConfigError, DataError or OutOfMemory.
    """
    device, use_torch = choose(folder, recipe, options, wanted)
    if not use_torch:
        return on_processor(folder, recipe, options)
    try:
        encoder = load_torch(folder, recipe, device=device, precision=options.precision, threads=options.threads)
    except OutOfMemory as error:
        refuse_or_warn(folder, options, device, error)
        spare = spare_encoder(folder, recipe, options)
        return Engine(encoder=spare, device="cpu", precision=spare.precision, memory_bytes=spare.memory_bytes)
    return Engine(
        encoder=encoder,
        device=device,
        precision=encoder.precision,
        memory_bytes=encoder.memory_bytes,
        spare=partial(spare_encoder, folder, recipe, options) if device != "cpu" else None,
    )


def refuse_or_warn(folder: Path, options: ModelsOptions, device: str, error: OutOfMemory) -> None:
    """A model whose weights do not fit runs on the processor, unless the settings insist on the device."""
    if options.device != "auto" or device == "cpu":
        raise error
    logger.warning("%s does not fit into the memory of %s and runs on the processor: %s", folder, device, error)


def choose(folder: Path, recipe: Recipe, options: ModelsOptions, wanted: str) -> tuple[str, bool]:
    """The device, and whether torch runs there."""
    has_tensors = (folder / WEIGHTS).is_file()
    if wanted == "openvino":
        return "cpu", False
    device = find_device(options.device)
    if wanted == "torch":
        return device, True
    if device == "cpu":
        unknown = recipe.network.model_type not in LAYOUTS and find_ready_graph(folder) is None
        return device, unknown and importlib.util.find_spec("transformers") is not None
    if not has_tensors:
        logger.warning("%s has no %s: it runs on the processor, not on %s", folder, WEIGHTS, device)
        return "cpu", False
    return device, True


def on_processor(folder: Path, recipe: Recipe, options: ModelsOptions) -> Engine:
    encoder = load_encoder(
        folder, recipe, precision=processor_precision(options), threads=options.threads, cache_dir=options.cache_dir
    )
    return Engine(encoder=encoder, device="cpu", precision=encoder.precision, memory_bytes=encoder.memory_bytes)


def open_pair_engine(
    folder: Path, recipe: PairRecipe, options: ModelsOptions, *, separator: int, wanted: str = "auto"
) -> Engine:
    """The engine for the cross-encoder in `folder`; as `open_engine`."""
    device = "cpu" if wanted == "openvino" else find_device(options.device)
    load = partial(
        load_cross_encoder,
        folder,
        recipe,
        separator=separator,
        threads=options.threads,
        cache_dir=options.cache_dir,
    )
    if wanted != "torch" and (device == "cpu" or not (folder / WEIGHTS).is_file()):
        made = load(precision=processor_precision(options))
        return Engine(encoder=made, device="cpu", precision=made.precision, memory_bytes=made.memory_bytes)
    try:
        encoder = load_torch_pairs(
            folder, recipe, separator=separator, device=device, precision=options.precision, threads=options.threads
        )
    except OutOfMemory as error:
        refuse_or_warn(folder, options, device, error)
        made = load(precision="auto")
        return Engine(encoder=made, device="cpu", precision=made.precision, memory_bytes=made.memory_bytes)
    return Engine(
        encoder=encoder,
        device=device,
        precision=encoder.precision,
        memory_bytes=encoder.memory_bytes,
        spare=partial(load, precision="auto") if device != "cpu" else None,
    )


def processor_precision(options: ModelsOptions) -> str:
    if options.precision == "f16":
        raise ConfigError("models.precision is f16, which only GPUs do. Use auto, i8, bf16 or f32.")
    return options.precision


def spare_encoder(folder: Path, recipe: Recipe, options: ModelsOptions) -> OpenVinoEncoder | TorchEncoder:
    """The same model on the processor: by OpenVINO where it knows the family, else by torch."""
    if recipe.network.model_type in LAYOUTS:
        return load_encoder(folder, recipe, precision="auto", threads=options.threads, cache_dir=options.cache_dir)
    return load_torch(folder, recipe, device="cpu", precision="auto", threads=options.threads)
