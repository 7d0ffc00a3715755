"""Measures embedding as ingestion and questions use it: through the pool, the batcher and its lanes."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op

from penstock.models.base import Embedder, Lane, Role
from penstock.models.openvino_encoder import SETTINGS, choose_precision
from penstock.models.openvino_graph import GROUP, grouped
from penstock.models.pool import ModelPool
from penstock.models.recipe import NetworkConfig

CALLERS = 8
"""Documents that are embedded at the same time, as by the jobs of a worker."""

TEXTS_A_CALL = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchEmbed:
    """What embedding some texts took. Tokens are those of the texts, special tokens included, padding not."""

    model: str
    precision: str
    texts: int
    tokens: int
    seconds: float
    cpu_s: float
    tokens_per_s: float
    texts_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCeiling:
    """What the machine could do. By processor time it is fair also where other programs run."""

    tokens_per_s: float
    tokens_per_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchInteractive:
    """Questions while bulk work saturates the engine: their latency, and what bulk work does with and without them."""

    questions: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    bulk_texts_per_s: float
    bulk_alone_texts_per_s: float


async def bench_embed(pool: ModelPool, texts: Sequence[str], *, model: str = "default") -> BenchEmbed:
    """Embed all texts once in the bulk lane, as the documents of several jobs. The model is loaded and warm before."""
    embedder = await pool.embedder(model)
    tokens = count_tokens(embedder, texts)
    await embedder.embed(texts[:TEXTS_A_CALL], lane=Lane.BULK)
    began, cpu_began = time.perf_counter(), time.process_time()
    await embed_all(embedder, texts)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return BenchEmbed(
        model=embedder.info.name,
        precision=embedder.info.precision,
        texts=len(texts),
        tokens=tokens,
        seconds=seconds,
        cpu_s=cpu_s,
        tokens_per_s=tokens / seconds,
        texts_per_s=len(texts) / seconds,
    )


async def bench_interactive(
    pool: ModelPool,
    texts: Sequence[str],
    questions: Sequence[str],
    *,
    rate: float = 50.0,
    seconds: float = 10.0,
    model: str = "default",
) -> BenchInteractive:
    """Ask `rate` questions a second, evenly, whether or not the last is answered, while `texts` go round in bulk.

    Bulk work is measured alone, too, half before and half after, so that a machine whose speed drifts favours neither.
    """
    embedder = await pool.embedder(model)
    done = [0]
    times_ms: list[float] = []

    async def ask(question: str) -> None:
        began = time.perf_counter()
        await embedder.embed([question], role=Role.QUERY, lane=Lane.INTERACTIVE)
        times_ms.append((time.perf_counter() - began) * 1e3)

    bulk = [asyncio.create_task(embed_for_ever(embedder, texts, number, done)) for number in range(CALLERS)]
    await asyncio.sleep(0.5)  # until the queue is full
    before = await texts_per_s(done, asyncio.sleep(seconds / 2))
    together = await texts_per_s(done, ask_evenly(ask, questions, rate, seconds))
    after = await texts_per_s(done, asyncio.sleep(seconds / 2))
    for task in bulk:
        task.cancel()
    await asyncio.gather(*bulk, return_exceptions=True)
    p50_ms, p95_ms = np.percentile(times_ms, [50, 95])
    return BenchInteractive(
        questions=len(times_ms),
        p50_ms=float(p50_ms),
        p95_ms=float(p95_ms),
        max_ms=max(times_ms),
        bulk_texts_per_s=together,
        bulk_alone_texts_per_s=(before + after) / 2,
    )


async def ask_evenly(
    ask: Callable[[str], Coroutine[None, None, None]], questions: Sequence[str], rate: float, seconds: float
) -> None:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, question in zip(range(int(rate * seconds)), cycle(questions), strict=False):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            group.create_task(ask(question))


async def texts_per_s(done: list[int], meanwhile: Awaitable[None]) -> float:
    """How fast `done[0]` rises while `meanwhile` runs."""
    before, began = done[0], time.perf_counter()
    await meanwhile
    return (done[0] - before) / (time.perf_counter() - began)


async def embed_all(embedder: Embedder, texts: Sequence[str]) -> None:
    starts = iter(range(0, len(texts), TEXTS_A_CALL))

    async def caller() -> None:
        for start in starts:
            await embedder.embed(texts[start : start + TEXTS_A_CALL], lane=Lane.BULK)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())


async def embed_for_ever(embedder: Embedder, texts: Sequence[str], number: int, done: list[int]) -> None:
    """Count finished texts in `done[0]`, in small calls so that the count is fine."""
    size = 8
    for start in cycle(range(number * size, len(texts) - size + 1, CALLERS * size)):
        await embedder.embed(texts[start : start + size], lane=Lane.BULK)
        done[0] += size


def count_tokens(embedder: Embedder, texts: Sequence[str]) -> int:
    """Tokens that the model reads of the texts."""
    encodings = embedder.tokenizer.encode_batch_fast(list(texts))
    return sum(min(len(encoding.ids), embedder.info.max_tokens) for encoding in encodings)


def measure_ceiling(network: NetworkConfig, *, precision: str, tokens: int = 2048, rounds: int = 8) -> BenchCeiling:
    """Tokens that this machine can do of the network's weight products alone, in `precision`; i8 as the engine has it.

    No attention, no norms, no lookups, no tokenizer: what is left for an engine that wastes nothing else. The best of
    `rounds` runs over `tokens` tokens. Blocking.
    """
    eight_bits = precision == "i8"
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": choose_precision(core, precision), **SETTINGS}
    if eight_bits:
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(GROUP)
    compiled = core.compile_model(products(network, tokens, eight_bits=eight_bits), "CPU", settings)
    request = compiled.create_infer_request()
    x = np.random.default_rng(0).normal(size=(tokens, network.hidden_size)).astype(np.float32)
    walls, cpus = [], []
    for _ in range(rounds + 1):
        began, cpu_began = time.perf_counter(), time.process_time()
        request.infer([x], share_inputs=True, share_outputs=True)
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - cpu_began)
    return BenchCeiling(tokens_per_s=tokens / min(walls[1:]), tokens_per_cpu_s=tokens / min(cpus[1:]))


def products(network: NetworkConfig, tokens: int, *, eight_bits: bool = False) -> Any:
    """Six products a layer, one behind the other: query, key, value, output, and the two of the wide part.

    `eight_bits`: the last three as the engine has them then.
    """
    hidden, wide = network.hidden_size, network.intermediate_size
    rng = np.random.default_rng(0)
    x = first = op.parameter([tokens, hidden], np.float32)
    for _ in range(network.num_hidden_layers):
        for place, (out, into) in enumerate([(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]):
            weight = (rng.normal(size=(out, into)) / math.sqrt(into)).astype(np.float32)
            rounded = eight_bits and place >= 3 and into % GROUP == 0
            x = op.matmul(x, grouped(weight) if rounded else op.constant(weight), False, True)
    return ov.Model([x], [first], "products")
