"""The OpenVINO engine: a network built from tensors or read from a ready graph, compiled for the CPU.

Streams run batches side by side, each with its share of the threads. On two cores two streams of one thread embed
15.5 k tokens/s where one stream of two threads embeds 12.2 k (MiniLM, bf16, 2 x 160 tokens): no thread waits for the
other at the end of every product, least of all for one whose core is taken. A question by itself takes 3 ms, not 2.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from penstock.models.openvino_graph import GROUP, integers, pool
from penstock.models.recipe import Pooling, Recipe
from penstock.models.tensors import TensorFile
from penstock.models.weights import WEIGHTS, find_ready_graph

SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "ENABLE_CPU_PINNING": False,  # other processes live on this machine too
        "CPU_RUNTIME_CACHE_CAPACITY": 1000,  # kernels are kept by shape, about ten of 0.1 MB a shape
    }
)

MOST_STREAMS = 4
"""On many cores each stream has several threads, so that a long text does not take for ever."""

VNNI = frozenset({"avx512_vnni", "avx_vnni"})
AMX = frozenset({"amx_bf16"})
"""Processors with it do 16 bits about as fast as 8."""

GRAPHS = 4
"""The version of all graphs that are built here: what was compiled from another one is not used."""


class OpenVinoEncoder(Encoder):
    """A compiled network and a request for each of its streams."""

    def __init__(self, compiled: Any, held: Any, *, precision: str, memory_bytes: int) -> None:
        self._held = held  # the memory that the network's weights lie in
        self.precision = precision
        self.memory_bytes = memory_bytes
        self._dimensions = int(compiled.output(0).get_partial_shape()[1].get_length())
        self._streams = int(compiled.get_property("NUM_STREAMS"))
        self._idle: deque[Any] = deque(compiled.create_infer_request() for _ in range(self._streams))
        self._closed = False

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def streams(self) -> int:
        return self._streams

    def start(self, ids: TokenIds, mask: TokenIds) -> Pending:
        if self._closed:
            raise Unavailable("The model is closed.")
        request = self._idle.popleft()
        try:
            request.start_async([ids, mask], share_inputs=True)
        except RuntimeError as error:
            self._idle.append(request)
            raise Unavailable(f"The model cannot run: {first_line(error)}") from error

        def wait() -> NDArray[np.float32]:
            try:
                request.wait()
                return np.array(request.get_output_tensor(0).data, np.float32)
            except RuntimeError as error:
                raise Unavailable(f"The model failed: {first_line(error)}") from error
            finally:
                self._idle.append(request)

        return wait

    def close(self) -> None:
        self._closed = True
        self._idle.clear()
        self._held = None


def first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a model folder becomes: a graph from tensors, or of a ready graph. `told` tells all that they depend on.

    `eight_bits`: what `build` makes has weights in 8 bits.
    """

    build: Callable[[TensorFile], Any]
    read: Callable[[Any], Any]
    told: str
    eight_bits: bool = False


def load_encoder(folder: Path, recipe: Recipe, *, precision: str, threads: int, cache_dir: Path) -> OpenVinoEncoder:
    """Compile the embedding model in `folder`, as `load_network` does; `precision` may be i8, too."""
    eight_bits = choose_eight_bits(precision, recipe)
    network = Network(
        build=lambda tensors: build_graph(tensors, recipe, eight_bits=eight_bits),
        read=lambda model: read_graph(model, recipe.pooling),
        told=str(recipe),
        eight_bits=eight_bits,
    )
    return load_network(folder, network, precision=precision, threads=threads, cache_dir=cache_dir)


def load_network(folder: Path, network: Network, *, precision: str, threads: int, cache_dir: Path) -> OpenVinoEncoder:
    """Compile the model in `folder`. Blocking, up to seconds.

    `precision` is auto, bf16 or f32; i8 is as auto. Raises ConfigError for a family or processor that does not do it,
    DataError for damaged files.
    """
    core = ov.Core()
    chosen = choose_precision(core, precision)
    settings = {"INFERENCE_PRECISION_HINT": chosen, **SETTINGS}
    threads = threads or available_threads()
    settings |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": min(threads, MOST_STREAMS)}
    ready = find_ready_graph(folder)
    weights = weights_of(ready) if ready else folder / WEIGHTS
    tensors = None if ready else TensorFile(weights)
    eight_bits = network.eight_bits and not ready
    if eight_bits:
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(GROUP)

    def build() -> Any:
        return network.build(tensors) if tensors is not None else network.read(core.read_model(ready))

    try:
        compiled, held = compile_network(
            core, build, settings, weights=weights, told=f"{GRAPHS}|{network.told}", folder=cache_dir / "compiled"
        )
    except RuntimeError as error:
        raise DataError(
            f"The network in {folder} cannot be built: {first_line(error)}. Get its files again."
        ) from error
    if tensors is not None:
        tensors.release()
    told = "i8" if eight_bits else chosen
    return OpenVinoEncoder(compiled, (held, tensors), precision=told, memory_bytes=weights.stat().st_size)


def available_threads() -> int:
    """One a processor core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_precision(core: Any, wanted: str) -> str:
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted == "bf16" and not able:
        raise ConfigError("models.precision is bf16, which this processor cannot do. Use auto or f32.")
    return "f32" if wanted == "f32" or not able else "bf16"


def choose_eight_bits(wanted: str, recipe: Recipe) -> bool:
    """Whether products run in 8 bits: where asked for, or where that is known to pay and to leave vectors alone."""
    flags = processor_flags()
    able = bool(flags & VNNI)
    if wanted == "i8" and not able:
        raise ConfigError("models.precision is i8, which this processor has no instructions for. Use auto.")
    return wanted == "i8" or (wanted == "auto" and able and recipe.holds_eight_bits and not flags & AMX)


def processor_flags(file: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor can do, in Linux' words; nothing is known elsewhere."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def weights_of(graph: Path) -> Path:
    """The file of a ready graph that its weights are in: ONNX has them inside."""
    return graph.with_suffix(".bin") if graph.suffix == ".xml" else graph


def text_inputs() -> tuple[Any, Any]:
    """Token ids and mask, (B, S) each."""
    ids, mask = (op.parameter([-1, -1], np.int32, name=name) for name in ("input_ids", "attention_mask"))
    return ids, mask


def build_graph(tensors: TensorFile, recipe: Recipe, *, eight_bits: bool = False) -> Any:
    ids, mask = text_inputs()
    vectors = pool(bert(recipe.network, tensors, ids, mask, eight_bits=eight_bits), mask, recipe.pooling)
    return ov.Model([vectors], [ids, mask], recipe.network.model_type)


def read_graph(model: Any, pooling: Pooling) -> Any:
    """A ready graph, with our inputs before it and, where it ends in token vectors, the pooling behind it."""
    ids, mask = text_inputs()
    connect(model, ids=ids, mask=mask, types=op.multiply(ids, op.constant(np.int32(0))))
    outputs = {
        len(result.get_output_partial_shape(0)): result.input_value(0) for result in reversed(model.get_results())
    }
    if 3 in outputs:
        vectors = pool(outputs[3], mask, pooling)
    elif 2 in outputs:  # pooled already
        vectors = op.normalize_l2(outputs[2], integers([1]), 1e-12, "max")
    else:
        raise ConfigError("The ready graph gives neither token vectors (3 axes) nor text vectors (2 axes).")
    return ov.Model([vectors], [ids, mask], "ready")


def connect(model: Any, *, ids: Any, mask: Any, types: Any) -> None:
    """Put our nodes in place of a ready graph's inputs. Raises ConfigError for an input that no text model has."""
    ours = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    for parameter in model.get_parameters():
        name = next(iter(parameter.output(0).get_names() & ours.keys()), None)
        if name is None:
            raise ConfigError(
                f"The ready graph wants an input {parameter.get_friendly_name()!r} that no text model has."
            )
        parameter.output(0).replace(op.convert(ours[name], parameter.get_element_type()).output(0))
