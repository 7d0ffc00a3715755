"""Embeddings from any OpenAI-compatible API, as an Embedder like any other."""

import asyncio
import random
import ssl
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer

from penstock.errors import ConfigError, InvalidInput
from penstock.models.base import Embedder, Lane, ModelInfo, Role, Vectors
from penstock.models.embedder import Executors, read_tokenizer
from penstock.models.metrics import ModelMetrics
from penstock.models.options import ModelsOptions, RemoteEmbedderOptions
from penstock.models.prefixes import Prefixes
from penstock.models.remote_call import RemoteCall
from penstock.models.remote_replies import BadReply, read_embeddings
from penstock.models.remote_tokenizer import cut, tokenizer_file
from penstock.types import JSON


class RemoteEmbedder(Embedder):
    """An async context manager: entering it asks the provider once, which tells the dimensions.

    Raises ConfigError when the provider's vectors have other dimensions than the settings say; ProviderError when it
    cannot be asked. A reply with a wrong count, index, dimension or number is refused whole.
    """

    def __init__(
        self,
        name: str,
        options: RemoteEmbedderOptions,
        models: ModelsOptions,
        *,
        prefixes: Prefixes,
        executors: Executors,
        metrics: ModelMetrics,
        random_source: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._name = name
        self._options = options
        self._models = models
        self._prefixes = prefixes
        self._executors = executors
        self._call = RemoteCall("/embeddings", options, metrics=metrics, random_source=random_source, tls=tls)
        self._info: ModelInfo | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        began = time.monotonic()
        try:
            self._tokenizer_file = await asyncio.get_running_loop().run_in_executor(
                self._executors.bulk, self._find_tokenizer
            )
            vectors = await self._embed(["warm up"], urgent=True)
        except BaseException:
            await self._call.close()
            raise
        self._info = self._describe(vectors.shape[1], time.monotonic() - began)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await self._call.close()

    def _find_tokenizer(self) -> Path:
        file = tokenizer_file(self._options.tokenizer, cache_dir=self._models.cache_dir, download=self._models.download)
        self._tokenizer = read_tokenizer(file)
        return file

    def _describe(self, dimensions: int, load_s: float) -> ModelInfo:
        return ModelInfo(
            name=self._name,
            kind="embedding",
            dimensions=dimensions,
            max_tokens=self._options.max_tokens,
            device="remote",
            precision="",
            memory_bytes=0,
            load_s=load_s,
            told=f"{self._options.base_url}|{self._options.model}|{self._prefixes.passage}",
        )

    @property
    def info(self) -> ModelInfo:
        assert self._info is not None, "it is entered first"
        return self._info

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def in_flight(self) -> int:
        """Calls at the provider now."""
        return self._call.in_flight

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self._tokenizer_file)

    @property
    def tokenizer_file(self) -> Path:
        return self._tokenizer_file

    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        if not texts:
            return np.empty((0, self.info.dimensions), np.float32)
        prefix = self._prefixes.of(role)
        ready = await asyncio.get_running_loop().run_in_executor(
            self._executors.of(lane), self._fit, [prefix + text for text in texts]
        )
        urgent = lane is Lane.INTERACTIVE
        try:
            async with asyncio.TaskGroup() as group:
                batches = list(split(ready, self._options.batch_texts, self._options.batch_bytes))
                tasks = [group.create_task(self._embed(batch, urgent=urgent)) for batch in batches]
        except* Exception as failures:  # the first one tells why; the group has ended the others
            raise failures.exceptions[0] from None
        return np.concatenate([task.result() for task in tasks])

    def _fit(self, texts: list[str]) -> list[str]:
        try:
            return [cut(self._tokenizer, text, self._options.max_tokens) for text in texts]
        except UnicodeEncodeError as error:
            raise InvalidInput("A text is not valid Unicode: it holds half of a surrogate pair.") from error

    async def _embed(self, texts: Sequence[str], *, urgent: bool) -> Vectors:
        options = self._options
        body: dict[str, JSON] = {"model": options.model, "input": list(texts), "encoding_format": options.encoding}
        if options.dimensions:
            body["dimensions"] = options.dimensions
        return await self._call.post(body, lambda reply: self._read(reply, len(texts)), urgent=urgent)

    def _read(self, reply: bytes, count: int) -> Vectors:
        try:
            vectors = read_embeddings(reply, count)
        except BadReply as exc:
            raise self._call.bad_reply(str(exc)) from exc
        self._check(vectors.shape[1])
        return vectors

    def _check(self, dimensions: int) -> None:
        wanted = self._options.dimensions
        if self._info is None and wanted and dimensions != wanted:
            raise ConfigError(
                f"{self._call.who} gives vectors of {dimensions} dimensions, not the {wanted} that the settings ask "
                f"for (models.embedders.{self._name}.dimensions). Set what the model can do."
            )
        if self._info is not None and dimensions != self._info.dimensions:
            raise self._call.bad_reply(f"vectors of {dimensions} dimensions instead of {self._info.dimensions}")


def split(texts: Sequence[str], most: int, most_bytes: int) -> Iterator[Sequence[str]]:
    """Runs of at most `most` texts and `most_bytes` bytes, one text at least."""
    run: list[str] = []
    size = 0
    for text in texts:
        grown = size + len(text.encode())
        if run and (len(run) >= most or grown > most_bytes):
            yield run
            run, grown = [], len(text.encode())
        run.append(text)
        size = grown
    yield run
