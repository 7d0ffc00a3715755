"""The models of a process by name: loaded once, kept while used, unloaded when idle and too many."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from penstock.errors import ConfigError, PenstockError, Unavailable
from penstock.models.base import Embedder, ImageEmbedder, Lane, ModelInfo, Reranker, Role, Vectors
from penstock.models.clip_embedder import ClipEmbedder
from penstock.models.clip_load import load_clip
from penstock.models.embedder import Executors, LocalEmbedder, read_tokenizer
from penstock.models.local import load_embedder
from penstock.models.metrics import ModelMetrics
from penstock.models.options import (
    ImageEmbedderOptions,
    LocalEmbedderOptions,
    LocalRerankerOptions,
    ModelsOptions,
    RemoteEmbedderOptions,
    RemoteRerankerOptions,
)
from penstock.models.prefixes import chosen_prefixes, known_prefixes
from penstock.models.remote_embedder import RemoteEmbedder
from penstock.models.remote_reranker import RemoteReranker
from penstock.models.rerank import LocalReranker, load_reranker

logger = logging.getLogger(__name__)

LONGEST_BACKOFF_S = 60.0


class Held(Protocol):
    """What a place in the pool holds: a model that is open."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def closed(self) -> bool:
        """Its engine broke down: it is to be loaded again."""

    async def __aexit__(self, *exc: object) -> None: ...


HeldEmbedder: TypeAlias = LocalEmbedder | RemoteEmbedder
HeldReranker: TypeAlias = LocalReranker | RemoteReranker
M = TypeVar("M", bound=Held)


class Slot(Generic[M]):
    """A model's place in the pool, how it is opened, and what is known of its last failed load.

    A local model takes memory, and a place of `max_loaded`; a remote one neither.
    """

    def __init__(self, name: str, opener: Callable[[], Awaitable[M]], *, local: bool) -> None:
        self.name = name
        self.open = opener
        self.local = local
        self.model: M | None = None
        self.loading: asyncio.Task[None] | None = None
        self.users = 0  # those who wait for it included
        self.used_at = 0.0
        self.failures = 0
        self.retry_at = 0.0
        self.error: PenstockError | None = None

    @property
    def ready(self) -> M | None:
        return None if self.model is None or self.model.closed else self.model


AnySlot: TypeAlias = Slot[HeldEmbedder] | Slot[HeldReranker] | Slot[ClipEmbedder]


class ModelPool:
    """Models by name or alias. An async context manager; used from one event loop.

    Guarantees: a model is loaded once however many ask at the same time; a model in use is never unloaded; after a
    failed load the next try waits (doubling up to a minute), and meanwhile callers get the error of the last one.
    """

    def __init__(self, options: ModelsOptions, *, registry: CollectorRegistry | None = None) -> None:
        self.options = self._options = options
        self._metrics = ModelMetrics(registry or CollectorRegistry())
        self._embedders: dict[str, Slot[HeldEmbedder]] = {}
        self._rerankers: dict[str, Slot[HeldReranker]] = {}
        self._image_embedders: dict[str, Slot[ClipEmbedder]] = {}
        self._handles: dict[str, PooledEmbedder] = {}  # one a model, for its tokenizer takes 20 ms to read
        self._changing = asyncio.Lock()  # held while a local model is loaded or unloaded: one at a time
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
        loading = [(slot.loading, slot.local) for slot in self._slots() if slot.loading is not None]
        for task, local in loading:
            if not local:  # a thread that loads a local one cannot be stopped, and ends soon
                task.cancel()
        await asyncio.gather(*(task for task, _ in loading), return_exceptions=True)
        for slot in self._slots():
            await self._unload(slot)
        for executor in (self._loader, self._executors.interactive, self._executors.bulk):
            executor.shutdown(wait=False, cancel_futures=True)

    def resolve(self, name: str) -> str:
        """The embedder that a name or alias stands for."""
        return self._options.resolve(name)

    async def preload(self) -> None:
        """Load and warm what the options name, so that the first call is as fast as any.

        A provider that cannot be asked now is asked again when it is needed. Everything else that is wrong is raised.
        """
        for name in self._options.preloaded:
            if self._full and self._takes_room(name):
                logger.warning("the model %s is not preloaded: models.max_loaded is %d", name, self._options.max_loaded)
                continue
            try:
                await self._warm(name)
            except PenstockError as error:
                if not error.retryable:
                    raise
                logger.warning("the model %s is not there yet: %s", name, error)

    async def embedder(self, name: str = "default") -> Embedder:
        """The model of that name, loaded. It stays usable: unloaded in between, it is loaded again by the next call.

        Raises MissingDependency, ConfigError or DataError for a model that cannot be used, ProviderError for a remote
        one that cannot be asked.
        """
        name = self.resolve(name)
        async with self.use(name) as model:
            return self._handles.setdefault(name, PooledEmbedder(self, name, model))

    async def reranker(self, name: str) -> Reranker:
        """The reranker of that name, loaded; usable as `embedder`'s is. ConfigError when the settings have none."""
        async with self.use_reranker(name) as model:
            return PooledReranker(self, name, model)

    async def image_embedder(self, name: str) -> ImageEmbedder:
        """The CLIP model of that name, loaded; usable as `embedder`'s is. ConfigError when the settings have none."""
        async with self.use_images(name) as model:
            return PooledImageEmbedder(self, name, model)

    def infos(self) -> Sequence[ModelInfo]:
        """The models that are open now."""
        return [slot.model.info for slot in self._slots() if slot.model is not None]

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[HeldEmbedder]:
        """The embedder itself, loaded and kept until the end of the block."""
        async with self._keep(self._embedder_slot(name)) as model:
            yield model

    @asynccontextmanager
    async def use_reranker(self, name: str) -> AsyncIterator[HeldReranker]:
        """The reranker itself, loaded and kept until the end of the block."""
        async with self._keep(self._reranker_slot(name)) as model:
            yield model

    @asynccontextmanager
    async def use_images(self, name: str) -> AsyncIterator[ClipEmbedder]:
        """The image embedder itself, loaded and kept until the end of the block."""
        async with self._keep(self._image_slot(name)) as model:
            yield model

    # --- places ---------------------------------------------------------------------------------------------------

    def _slots(self) -> Sequence[AnySlot]:
        return [*self._embedders.values(), *self._rerankers.values(), *self._image_embedders.values()]

    def _embedder_slot(self, name: str) -> Slot[HeldEmbedder]:
        if name not in self._embedders:
            options = self._options.embedders.get(name) or LocalEmbedderOptions(model=name)
            local = isinstance(options, LocalEmbedderOptions)
            self._embedders[name] = Slot(name, partial(self._open_embedder, name, options), local=local)
        return self._embedders[name]

    def _reranker_slot(self, name: str) -> Slot[HeldReranker]:
        options = self._options.rerankers.get(name)
        if options is None:
            known = ", ".join(self._options.rerankers) or "none"
            raise ConfigError(f"There is no reranker {name!r} in the settings (models.rerankers has: {known}).")
        if name not in self._rerankers:
            local = isinstance(options, LocalRerankerOptions)
            self._rerankers[name] = Slot(name, partial(self._open_reranker, name, options), local=local)
        return self._rerankers[name]

    def _image_slot(self, name: str) -> Slot[ClipEmbedder]:
        options = self._options.image_embedders.get(name)
        if options is None:
            known = ", ".join(self._options.image_embedders) or "none"
            raise ConfigError(
                f"There is no image embedder {name!r} in the settings (models.image_embedders has: {known})."
            )
        if name not in self._image_embedders:
            self._image_embedders[name] = Slot(name, partial(self._open_images, name, options), local=True)
        return self._image_embedders[name]

    async def _open_images(self, name: str, options: ImageEmbedderOptions) -> ClipEmbedder:
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loader, load_clip, name, options, self._options)
        return await ClipEmbedder(
            loaded,
            max_pixels=options.max_pixels,
            executors=self._executors,
            options=self._options,
            metrics=self._metrics,
        ).__aenter__()

    async def _open_embedder(self, name: str, options: LocalEmbedderOptions | RemoteEmbedderOptions) -> HeldEmbedder:
        if isinstance(options, RemoteEmbedderOptions):
            prefixes = chosen_prefixes(
                known_prefixes(options.model), query=options.query_prefix, passage=options.passage_prefix
            )
            return await RemoteEmbedder(
                name, options, self._options, prefixes=prefixes, executors=self._executors, metrics=self._metrics
            ).__aenter__()
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loader, load_embedder, name, options, self._options)
        return await LocalEmbedder(
            loaded, executors=self._executors, options=self._options, metrics=self._metrics
        ).__aenter__()

    async def _open_reranker(self, name: str, options: LocalRerankerOptions | RemoteRerankerOptions) -> HeldReranker:
        if isinstance(options, RemoteRerankerOptions):
            return await RemoteReranker(name, options, metrics=self._metrics).__aenter__()
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loader, load_reranker, name, options, self._options)
        return await LocalReranker(
            loaded,
            candidates=options.candidates,
            executors=self._executors,
            options=self._options,
            metrics=self._metrics,
        ).__aenter__()

    def _takes_room(self, name: str) -> bool:
        if name in self._options.rerankers:
            slot: AnySlot = self._reranker_slot(name)
        elif name in self._options.image_embedders:
            slot = self._image_slot(name)
        else:
            slot = self._embedder_slot(self.resolve(name))
        return slot.local and slot.model is None

    async def _warm(self, name: str) -> None:
        if name in self._options.rerankers:
            await (await self.reranker(name)).rerank("warm up", ["warm up"])
            return
        if name in self._options.image_embedders:
            await (await self.image_embedder(name)).embed(["warm up"], role=Role.QUERY)
            return
        embedder = await self.embedder(name)
        await embedder.embed(["warm up"], role=Role.QUERY)
        embedder.tokenizer.encode("warm up")

    # --- loading and unloading ------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _keep(self, slot: Slot[M]) -> AsyncIterator[M]:
        slot.users += 1
        try:
            yield slot.ready or await self._load(slot)
        finally:
            slot.users -= 1
            slot.used_at = time.monotonic()
            self._idle.set()

    async def _load(self, slot: Slot[M]) -> M:
        """Load it, once for all who ask meanwhile; and on, should all of them be cancelled: the next one asks soon."""
        self._check_open()
        if slot.loading is None:
            if slot.error is not None and time.monotonic() < slot.retry_at:
                raise slot.error.with_traceback(None)
            slot.loading = asyncio.create_task(self._load_now(slot))
            slot.loading.add_done_callback(lambda task: self._loaded(slot, task))
        await asyncio.shield(slot.loading)
        assert slot.model is not None, "who waits is a user, and what is used is not unloaded"
        return slot.model

    def _loaded(self, slot: Slot[M], task: asyncio.Task[None]) -> None:
        slot.loading = None
        if not task.cancelled():
            task.exception()  # seen: perhaps nobody waits any more

    async def _load_now(self, slot: Slot[M]) -> None:
        if not slot.local:
            await self._open(slot)
            return
        async with self._changing:
            await self._make_room()
            await self._open(slot)

    async def _open(self, slot: Slot[M]) -> None:
        self._check_open()
        await self._unload(slot)
        try:
            slot.model = model = await slot.open()
        except PenstockError as error:
            self._note_failure(slot, error)
            raise
        slot.failures, slot.error, slot.used_at = 0, None, time.monotonic()
        info = model.info
        logger.info("loaded %s in %.2f s (%s)", slot.name, info.load_s, f"{info.device} {info.precision}".strip())
        self._metrics.loads.labels(slot.name, "done").inc()
        self._metrics.memory.labels(slot.name).set(info.memory_bytes)

    def _note_failure(self, slot: Slot[M], error: PenstockError) -> None:
        pause_s = min(self._options.reload_backoff_s * 2**slot.failures, LONGEST_BACKOFF_S)
        slot.failures, slot.error, slot.retry_at = slot.failures + 1, error, time.monotonic() + pause_s
        logger.error("cannot load %s, next try in %.0f s at the earliest: %s", slot.name, pause_s, error)
        self._metrics.loads.labels(slot.name, "failed").inc()

    @property
    def _full(self) -> bool:
        return sum(slot.local and slot.model is not None for slot in self._slots()) >= self._options.max_loaded

    async def _make_room(self) -> None:
        """Unload what was idle longest until one more fits; while all are in use, wait for one that is not."""
        while self._full:
            idle = [slot for slot in self._slots() if slot.local and slot.model is not None and not slot.users]
            if idle:
                await self._unload(min(idle, key=lambda slot: slot.used_at))
            else:
                self._idle.clear()
                await self._idle.wait()
                self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The models are being unloaded: the process is stopping.")

    async def _unload(self, slot: AnySlot | Slot[M]) -> None:
        model, slot.model = slot.model, None
        if model is not None:
            await model.__aexit__(None, None, None)
            self._metrics.memory.labels(slot.name).set(0)
            logger.info("unloaded %s", slot.name)


class PooledEmbedder(Embedder):
    """What the pool gives out: a model by name, whether it is in memory at the moment or not."""

    def __init__(self, pool: ModelPool, name: str, model: HeldEmbedder) -> None:
        self._pool = pool
        self._name = name
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
        async with self._pool.use(self._name) as model:
            return await model.embed(texts, role=role, lane=lane)


class PooledImageEmbedder(PooledEmbedder, ImageEmbedder):
    """An image embedder by name, whether it is in memory at the moment or not."""

    async def embed(self, texts: Sequence[str], *, role: Role = Role.PASSAGE, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        async with self._pool.use_images(self._name) as model:
            return await model.embed(texts, role=role, lane=lane)

    async def embed_images(self, images: Sequence[bytes], *, lane: Lane = Lane.INTERACTIVE) -> Vectors:
        async with self._pool.use_images(self._name) as model:
            return await model.embed_images(images, lane=lane)


class PooledReranker(Reranker):
    """As `PooledEmbedder`."""

    def __init__(self, pool: ModelPool, name: str, model: HeldReranker) -> None:
        self._pool = pool
        self._name = name
        self._info = model.info
        self._candidates = model.candidates

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def candidates(self) -> int:
        return self._candidates

    async def rerank(self, query: str, texts: Sequence[str], *, lane: Lane = Lane.INTERACTIVE) -> NDArray[np.float32]:
        async with self._pool.use_reranker(self._name) as model:
            return await model.rerank(query, texts, lane=lane)
