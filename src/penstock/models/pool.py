"""The models of a process by name: loaded once, kept while used, unloaded when idle and too many."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from penstock.errors import PenstockError, Unavailable
from penstock.models.base import Embedder, Lane, ModelInfo, Role, Vectors
from penstock.models.embedder import Executors, LocalEmbedder, load_model, read_tokenizer
from penstock.models.metrics import ModelMetrics
from penstock.models.options import ModelsOptions

logger = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 60.0


@dataclass(slots=True, eq=False)
class Slot:
    """A model's place in the pool, and what is known of its last failed load."""

    name: str
    model: LocalEmbedder | None = None
    users: int = 0
    used_at: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    error: PenstockError | None = None

    @property
    def ready(self) -> LocalEmbedder | None:
        return None if self.model is None or self.model.closed else self.model


class ModelPool:
    """Models by name or alias. An async context manager; used from one event loop.

    Guarantees: a model is loaded once however many ask at the same time; a model in use is never unloaded; after a
    failed load the next try waits (doubling up to a minute), and meanwhile callers get the error of the last one.
    """

    def __init__(self, options: ModelsOptions, *, registry: CollectorRegistry | None = None) -> None:
        self._options = options
        self._metrics = ModelMetrics(registry or CollectorRegistry())
        self._slots: dict[str, Slot] = {}
        self._embedders: dict[str, PooledEmbedder] = {}  # one a model, for its tokenizer takes 20 ms to read
        self._changing = asyncio.Lock()  # held while a model is loaded or unloaded: one at a time
        self._idle = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="model-load")
        self._executors = Executors(
            interactive=ThreadPoolExecutor(1, thread_name_prefix="tokenize-interactive"),
            bulk=ThreadPoolExecutor(1, thread_name_prefix="tokenize-bulk"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        self._idle.set()
        async with self._changing:
            for slot in self._slots.values():
                await self._unload(slot)
        for executor in (self._loader, self._executors.interactive, self._executors.bulk):
            executor.shutdown(wait=False, cancel_futures=True)

    def resolve(self, name: str) -> str:
        """The model that a name or alias stands for."""
        seen: set[str] = set()
        names = {"default": self._options.embedding, **self._options.aliases}
        while name in names and name not in seen:
            seen.add(name)
            name = names[name]
        return name

    async def preload(self) -> None:
        """Load and warm what the options name, so that the first call is as fast as any."""
        for name in self._options.preload:
            embedder = await self.embedder(name)
            await embedder.embed(["warm up"], role=Role.QUERY)
            embedder.tokenizer.encode("warm up")

    async def embedder(self, name: str = "default") -> Embedder:
        """The model of that name, loaded. It stays usable: unloaded in between, it is loaded again by the next call.

        Raises MissingDependency, ConfigError or DataError for a model that cannot be used.
        """
        name = self.resolve(name)
        async with self.use(name) as model:
            return self._embedders.setdefault(name, PooledEmbedder(self, model))

    def infos(self) -> Sequence[ModelInfo]:
        """The models in memory now."""
        return [slot.model.info for slot in self._slots.values() if slot.model is not None]

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LocalEmbedder]:
        """The model itself, loaded and kept until the end of the block."""
        slot = self._slots.setdefault(name, Slot(name))
        model = slot.ready or await self._load(slot)
        slot.users += 1  # nothing is awaited since: nobody can have unloaded it
        try:
            yield model
        finally:
            slot.users -= 1
            slot.used_at = time.monotonic()
            self._idle.set()

    async def _load(self, slot: Slot) -> LocalEmbedder:
        async with self._changing:
            if slot.ready:  # somebody was first
                return slot.ready
            self._check_open()
            if slot.error is not None and time.monotonic() < slot.retry_at:
                raise slot.error.with_traceback(None)
            await self._unload(slot)
            await self._make_room()
            try:
                slot.model = await self._open(slot.name)
            except PenstockError as error:
                self._note_failure(slot, error)
                raise
            slot.failures, slot.error = 0, None
            return slot.model

    async def _open(self, name: str) -> LocalEmbedder:
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loader, load_model, name, self._options)
        model = LocalEmbedder(loaded, executors=self._executors, options=self._options, metrics=self._metrics)
        await model.__aenter__()
        info = loaded.info
        logger.info("loaded %s in %.2f s (%s, %s)", name, info.load_s, info.device, info.precision)
        self._metrics.loads.labels(name, "done").inc()
        self._metrics.memory.labels(name).set(info.memory_bytes)
        return model

    def _note_failure(self, slot: Slot, error: PenstockError) -> None:
        pause_s = min(self._options.reload_backoff_s * 2**slot.failures, LONGEST_BACKOFF_S)
        slot.failures, slot.error, slot.retry_at = slot.failures + 1, error, time.monotonic() + pause_s
        logger.error("cannot load %s, next try in %.0f s at the earliest: %s", slot.name, pause_s, error)
        self._metrics.loads.labels(slot.name, "failed").inc()

    async def _make_room(self) -> None:
        """Unload what was idle longest until one more fits; while all are in use, wait for one that is not."""
        while True:
            loaded = [slot for slot in self._slots.values() if slot.model is not None]
            if len(loaded) < self._options.max_loaded:
                return
            idle = [slot for slot in loaded if not slot.users]
            if idle:
                await self._unload(min(idle, key=lambda slot: slot.used_at))
            else:
                self._idle.clear()
                await self._idle.wait()
                self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The models are being unloaded: the process is stopping.")

    async def _unload(self, slot: Slot) -> None:
        model, slot.model = slot.model, None
        if model is not None:
            await model.__aexit__(None, None, None)
            self._metrics.memory.labels(slot.name).set(0)
            logger.info("unloaded %s", slot.name)


class PooledEmbedder(Embedder):
    """What the pool gives out: a model by name, whether it is in memory at the moment or not."""

    def __init__(self, pool: ModelPool, model: LocalEmbedder) -> None:
        self._pool = pool
        self._info = model.info
        self._tokenizer_file = model.tokenizer_file

    @property
    def info(self) -> ModelInfo:
        return self._info

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self._tokenizer_file)

    @property
    def tokenizer_file(self) -> Path:
        return self._tokenizer_file

    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        async with self._pool.use(self._info.name) as model:
            return await model.embed(texts, role=role, lane=lane)
