"""A model in this process as an Embedder: tokenize off the loop, queue in the batcher, put together."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from penstock.errors import DataError, InvalidInput, OutOfMemory
from penstock.models.base import Embedder, Encoder, Lane, ModelInfo, Role, TokenIds, Vectors
from penstock.models.batcher import Batcher
from penstock.models.cost import CostModel
from penstock.models.engine import GPU_FITS, GPU_SHAPES, Engine, open_engine
from penstock.models.lane import Call
from penstock.models.metrics import ModelMetrics
from penstock.models.options import ModelsOptions
from penstock.models.recipe import Recipe, read_recipe
from penstock.models.shapes import padded_length
from penstock.models.weights import find_model

GROUP = 64
"""Texts tokenized and queued at once: about 10 ms of work for long passages, so that calls take turns."""

WARM_SHAPES = ((1, 16), (1, 24), (1, 32), (1, 48), (1, 64), (4, 64), (2, 128), (1, 256), (8, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Executors:
    """Threads that tokenize, one set a process: bulk work never stands before a question."""

    interactive: Executor
    bulk: Executor

    def of(self, lane: Lane) -> Executor:
        return self.interactive if lane is Lane.INTERACTIVE else self.bulk


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What loading a model gives: all of it may be made on any thread."""

    info: ModelInfo
    engine: Engine
    tokenizer: Tokenizer
    tokenizer_file: Path
    recipe: Recipe
    cost: CostModel


def load_model(name: str, options: ModelsOptions, *, engine: str = "auto") -> Loaded:
    """Find, read, compile and warm a model. Blocking, up to seconds, or as long as a download takes.

    Raises MissingDependency, ConfigError or DataError, each saying what to do.
    """
    began = time.monotonic()
    folder = find_model(name, cache_dir=options.cache_dir, download=options.download)
    recipe = read_recipe(folder, name)
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = read_tokenizer(tokenizer_file)
    tokenizer.enable_truncation(recipe.max_tokens)
    opened = open_engine(folder, recipe, options, wanted=engine)
    info = ModelInfo(
        name=name,
        kind="embedding",
        dimensions=opened.encoder.dimensions,
        max_tokens=recipe.max_tokens,
        device=opened.device,
        precision=opened.precision,
        memory_bytes=opened.memory_bytes,
        load_s=0.0,
    )
    cost = warm_up(opened.encoder, recipe.max_tokens, *((GPU_SHAPES, GPU_FITS) if opened.on_gpu else ()))
    return Loaded(
        info=replace(info, load_s=time.monotonic() - began),
        engine=opened,
        tokenizer=tokenizer,
        tokenizer_file=tokenizer_file,
        recipe=recipe,
        cost=cost,
    )


def read_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer as the model was trained with it, but with no truncation and no padding."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{file} is not a readable tokenizer: {error}. Get the model's files again.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def warm_up(
    encoder: Encoder, longest: int, shapes: Sequence[tuple[int, int]] = WARM_SHAPES, fits: int = 1
) -> CostModel:
    """Run the usual small shapes on every stream to have their kernels, and once more to learn what they cost."""
    cost = CostModel()
    for rows, tokens in shapes:
        length = padded_length(min(tokens, longest), longest=longest)
        ids, mask = np.zeros((rows, length), np.int32), np.ones((rows, length), np.int32)
        try:
            for pending in [encoder.start(ids, mask) for _ in range(encoder.streams)]:
                pending()
            began = time.monotonic()
            encoder.start(ids, mask)()
        except OutOfMemory:  # the larger ones will not fit either; the batcher finds out what does
            encoder.relieve()
            break
        cost.observe(rows, length, (time.monotonic() - began) * 1e3)
    for _ in range(fits):
        cost.fit()
    return cost


class LocalEmbedder(Embedder):
    """An embedder over one loaded model. An async context manager: leaving it stops the engine."""

    def __init__(self, loaded: Loaded, *, executors: Executors, options: ModelsOptions, metrics: ModelMetrics) -> None:
        self._loaded = loaded
        self._executors = executors
        self._batcher = Batcher(
            loaded.engine.encoder,
            name=loaded.info.name,
            longest=loaded.info.max_tokens,
            pad_id=loaded.recipe.network.pad_token_id,
            options=loaded.engine.batcher(options.batcher),
            metrics=metrics,
            cost=loaded.cost,
            spare=loaded.engine.spare,
        )

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._batcher.__aexit__(*exc)

    @property
    def info(self) -> ModelInfo:
        return self._loaded.info

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.tokenizer_file)

    @property
    def tokenizer_file(self) -> Path:
        return self._loaded.tokenizer_file

    @property
    def closed(self) -> bool:
        return self._batcher.closed

    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        if not texts:
            return np.empty((0, self.info.dimensions), np.float32)
        prefix = self._loaded.recipe.prefixes.of(role)
        calls: list[Call] = []
        try:
            for start in range(0, len(texts), GROUP):
                ids = await self._tokenize([prefix + text for text in texts[start : start + GROUP]], lane)
                calls.append(await self._batcher.put(ids, lane))
            for call in calls:
                await call.done
        except BaseException:
            for call in calls:
                self._batcher.forget(call)
            raise
        return shortened(np.concatenate([call.result for call in calls]), self.info.dimensions)

    async def _tokenize(self, texts: list[str], lane: Lane) -> list[TokenIds]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executors.of(lane), tokenize, self._loaded.tokenizer, texts)


def shortened(vectors: Vectors, dimensions: int) -> Vectors:
    """The first `dimensions` numbers of each vector, of length 1 again (Kusupati et al. 2022, Matryoshka)."""
    if dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    return np.asarray(kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12), np.float32)


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> list[TokenIds]:
    """Token ids with the special tokens. Rust does the work and lets the interpreter go meanwhile."""
    try:
        encodings = tokenizer.encode_batch_fast(texts)
    except (TypeError, ValueError) as error:
        raise InvalidInput("A text is not valid Unicode: it holds half of a surrogate pair.") from error
    return [np.array(encoding.ids, np.int32) for encoding in encodings]
