"""The OpenVINO engine: a network built from tensors or read from a ready graph, compiled for the CPU."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op
from numpy.typing import NDArray

from penstock.errors import ConfigError, DataError, Unavailable
from penstock.models.base import Encoder, Pending, TokenIds
from penstock.models.compiled import compile_network
from penstock.models.openvino_bert import bert
from penstock.models.openvino_graph import pool
from penstock.models.recipe import Recipe
from penstock.models.tensors import TensorFile
from penstock.models.weights import READY_GRAPH, WEIGHTS

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # other processes live on this machine too
        "CPU_RUNTIME_CACHE_CAPACITY": 1000,  # kernels are kept by shape, about ten of 0.1 MB a shape
    }
)


class OpenVinoEncoder(Encoder):
    """A compiled network and its one request."""

    def __init__(self, compiled: Any, held: Any, *, precision: str, memory_bytes: int) -> None:
        self._held = held  # the memory that the network's weights lie in
        self.precision = precision
        self.memory_bytes = memory_bytes
        self._dimensions = int(compiled.output(0).get_partial_shape()[1].get_length())
        self._request = compiled.create_infer_request()

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def start(self, ids: TokenIds, mask: TokenIds) -> Pending:
        request = self._request
        if request is None:
            raise Unavailable("The model is closed.")
        try:
            request.start_async([ids, mask], share_inputs=True)
        except RuntimeError as error:
            raise Unavailable(f"The model cannot run: {first_line(error)}") from error

        def wait() -> NDArray[np.float32]:
            try:
                request.wait()
            except RuntimeError as error:
                raise Unavailable(f"The model failed: {first_line(error)}") from error
            return np.array(request.get_output_tensor(0).data, np.float32)

        return wait

    def close(self) -> None:
        self._request = None
        self._held = None


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__


def load_encoder(folder: Path, recipe: Recipe, *, precision: str, threads: int, cache_dir: Path) -> OpenVinoEncoder:
    """Compile the model in `folder`. Blocking, up to seconds.

    `precision` is auto, bf16 or f32. Raises ConfigError for a family or processor that does not do it, DataError for
    damaged files.
    """
    core = ov.Core()
    chosen = choose_precision(core, precision)
    settings = {"INFERENCE_PRECISION_HINT": chosen, **SETTINGS}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    ready = folder / READY_GRAPH
    weights = ready.with_suffix(".bin") if ready.is_file() else folder / WEIGHTS
    tensors = None if ready.is_file() else TensorFile(weights)

    def build() -> Any:
        return read_graph(core, ready, recipe) if tensors is None else build_graph(tensors, recipe)

    try:
        compiled, held = compile_network(
            core, build, settings, weights=weights, told=str(recipe), folder=cache_dir / "compiled"
        )
    except RuntimeError as error:
        raise DataError(
            f"The network in {folder} cannot be built: {first_line(error)}. Get its files again."
        ) from error
    if tensors is not None:
        tensors.release()
    return OpenVinoEncoder(compiled, (held, tensors), precision=chosen, memory_bytes=weights.stat().st_size)


def choose_precision(core: Any, wanted: str) -> str:
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not able:
        raise ConfigError("models.precision is bf16, which this processor cannot do. Use auto or f32.")
    return "f32" if wanted == "f32" or not able else "bf16"


def build_graph(tensors: TensorFile, recipe: Recipe) -> Any:
    ids, mask = (op.parameter([-1, -1], np.int32, name=name) for name in ("input_ids", "attention_mask"))
    vectors = pool(bert(recipe.network, tensors, ids, mask), mask, recipe.pooling)
    return ov.Model([vectors], [ids, mask], recipe.network.model_type)


def read_graph(core: Any, file: Path, recipe: Recipe) -> Any:
    """A ready graph of token vectors, with our inputs before it and the pooling behind it."""
    model = core.read_model(file)
    ids, mask = (op.parameter([-1, -1], np.int32, name=name) for name in ("input_ids", "attention_mask"))
    types = op.multiply(ids, op.constant(np.int32(0)))
    ours = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    for parameter in model.get_parameters():
        name = next(iter(parameter.output(0).get_names() & ours.keys()), None)
        if name is None:
            raise ConfigError(f"{file} wants an input {parameter.get_friendly_name()!r} that no text model has.")
        parameter.output(0).replace(op.convert(ours[name], parameter.get_element_type()).output(0))
    tokens = model.get_results()[0].input_value(0)
    return ov.Model([pool(tokens, mask, recipe.pooling)], [ids, mask], "ready")
