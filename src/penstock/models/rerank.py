"""A cross-encoder in this process as a Reranker: pairs through the batcher, as texts go."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.models.base import Lane, ModelInfo, Reranker, TokenIds
from penstock.models.batcher import Batcher
from penstock.models.cost import CostModel
from penstock.models.embedder import Executors, read_tokenizer, warm_up
from penstock.models.engine import GPU_FITS, GPU_SHAPES, Engine, open_pair_engine
from penstock.models.lane import Call
from penstock.models.metrics import ModelMetrics
from penstock.models.options import LocalRerankerOptions, ModelsOptions
from penstock.models.recipe import read_pair_recipe
from penstock.models.rerank_pairs import PairTemplate, read_template, tokenize_pairs, tokenize_query
from penstock.models.weights import find_model

GROUP = 32
"""Pairs tokenized and queued at once, so that calls take turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedReranker:
    """What loading gives: all of it may be made on any thread."""

    info: ModelInfo
    engine: Engine
    tokenizer: Tokenizer
    template: PairTemplate
    pad_id: int
    cost: CostModel


def load_reranker(name: str, spec: LocalRerankerOptions, options: ModelsOptions) -> LoadedReranker:
    """Find, read, compile and warm a cross-encoder. Blocking, up to seconds, or as long as a download takes.

    Raises MissingDependency, ConfigError or DataError, each saying what to do.
    """
    began = time.monotonic()
    folder = find_model(spec.model, cache_dir=options.cache_dir, download=options.download)
    recipe = read_pair_recipe(folder)
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    template = read_template(tokenizer)
    tokenizer.encode_special_tokens = True  # a "[SEP]" that somebody typed is text
    engine = open_pair_engine(folder, recipe, options, separator=template.separator, wanted=spec.engine)
    cost = warm_up(engine.encoder, recipe.max_tokens, *((GPU_SHAPES, GPU_FITS) if engine.on_gpu else ()))
    info = ModelInfo(
        name=name,
        kind="rerank",
        dimensions=1,
        max_tokens=recipe.max_tokens,
        device=engine.device,
        precision=engine.precision,
        memory_bytes=engine.memory_bytes,
        load_s=time.monotonic() - began,
    )
    pad_id = recipe.network.pad_token_id
    return LoadedReranker(info=info, engine=engine, tokenizer=tokenizer, template=template, pad_id=pad_id, cost=cost)


class LocalReranker(Reranker):
    """A reranker over one loaded model. An async context manager: leaving it stops the engine."""

    def __init__(
        self,
        loaded: LoadedReranker,
        *,
        candidates: int,
        executors: Executors,
        options: ModelsOptions,
        metrics: ModelMetrics,
    ) -> None:
        self._loaded = loaded
        self._candidates = candidates
        self._executors = executors
        self._batcher = Batcher(
            loaded.engine.encoder,
            name=loaded.info.name,
            longest=loaded.info.max_tokens,
            pad_id=loaded.pad_id,
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

    @property
    def candidates(self) -> int:
        return self._candidates

    @property
    def closed(self) -> bool:
        return self._batcher.closed

    async def rerank(self, query: str, texts: Sequence[str], *, lane: Lane = Lane.INTERACTIVE) -> NDArray[np.float32]:
        if not texts:
            return np.empty(0, np.float32)
        calls: list[Call] = []
        try:
            head = await self._tokenize_query(query, lane)
            for start in range(0, len(texts), GROUP):
                pairs = await self._tokenize_pairs(head, texts[start : start + GROUP], lane)
                calls.append(await self._batcher.put(pairs, lane))
            for call in calls:
                await call.done
        except BaseException:
            for call in calls:
                self._batcher.forget(call)
            raise
        return probabilities(np.concatenate([call.result[:, 0] for call in calls]))

    async def _tokenize_query(self, query: str, lane: Lane) -> TokenIds:
        room = (self.info.max_tokens - self._loaded.template.tokens) // 2
        return await asyncio.get_running_loop().run_in_executor(
            self._executors.of(lane), lambda: tokenize_query(self._loaded.tokenizer, query, room=room)
        )

    async def _tokenize_pairs(self, head: TokenIds, texts: Sequence[str], lane: Lane) -> list[TokenIds]:
        made = self._loaded
        return await asyncio.get_running_loop().run_in_executor(
            self._executors.of(lane),
            lambda: tokenize_pairs(made.tokenizer, made.template, head, texts, max_tokens=made.info.max_tokens),
        )


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic function: any number to (0, 1), in the same order."""
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)
