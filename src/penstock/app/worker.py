"""The worker process: models loaded and warmed, index and parsers open, and only then jobs leased."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import prometheus_client

from penstock.app.lifeline import StopSignal
from penstock.app.services import Services, open_services
from penstock.app.worker_metrics import serve_metrics
from penstock.blobs import open_blobs
from penstock.cache import open_cache
from penstock.errors import PenstockError
from penstock.jobs import open_store
from penstock.jobs.worker import Worker
from penstock.ledger import open_ledger
from penstock.models.generator import Generator
from penstock.models.generator_options import GeneratorOptions
from penstock.models.openai_generator import OpenAIGenerator
from penstock.models.pool import ModelPool
from penstock.pipeline.answer import Answerer
from penstock.pipeline.batch_sources import Sources
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.document_reader import DocumentReader
from penstock.pipeline.gather import Gatherer
from penstock.pipeline.handlers import Handlers
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.ingest import IngestOptions, Ingestor
from penstock.pipeline.intake import IntakeOptions
from penstock.pipeline.parsing import ParserPool
from penstock.pipeline.picture_index import PictureIndexer
from penstock.pipeline.pictures import Pictures
from penstock.pipeline.reindex import Reindexer
from penstock.pipeline.requests import Kind
from penstock.pipeline.retrieve import Retriever
from penstock.pipeline.upkeep import Upkeep, UpkeepOptions
from penstock.settings import Settings
from penstock.stores import open_index
from penstock.stores.base import IndexStore
from penstock.stores.routed import RoutedIndex
from penstock.types import Collection, LoadedModel

logger = logging.getLogger(__name__)

WARMED_COLLECTIONS = 20
WARM_UP_QUESTIONS = ("What is the first question?", "第一个问题是什么？", "Who asks, and when?")
"""Asked of each collection before work is taken, so that the first question of a person is as quick as the tenth."""
WARM_UP_S = 0.5
"""How long the collections are asked at most: after a crash, work is waiting."""


def prepare(settings: Settings) -> None:
    """Imports what `run_worker` will need, which is most of the time that it takes to start, and opens nothing.

    Raises `MissingDependency` and `ConfigError`, as that would.
    """
    open_ledger(settings.ledger_url)
    open_store(settings.jobs_url, settings.queue)
    open_blobs(settings.blobs_url)
    open_cache(settings.cache_url, settings.cache)
    make_index(settings)


async def run_worker(
    settings: Settings,
    *,
    worker_id: str,
    kinds: frozenset[str] | None,
    stop: StopSignal,
    started: Callable[[], None],
) -> None:
    """Works until `stop`, then finishes or hands back what runs within the grace period.

    `kinds` None: all. Raises what the stores and models raise while they are opened; then nothing was leased.
    """
    await stop.install()
    with serve_metrics(settings.worker.metrics_host, settings.worker.metrics_port):
        await _work(settings, worker_id, kinds, stop, started)


async def _work(
    settings: Settings,
    worker_id: str,
    kinds: frozenset[str] | None,
    stop: StopSignal,
    started: Callable[[], None],
) -> None:
    async with (
        open_services(settings) as services,
        open_engines(settings) as engines,
        open_sources(services) as sources,
    ):
        pictures = make_picture_indexer(services, engines)
        gatherer = Gatherer(services.ledger, services.jobs, sources)
        reindexer = Reindexer(
            services.ledger,
            engines.index,
            engines.writer,
            engines.models,
            engines.cache,
            pictures,
        )
        handlers = {
            **make_handlers(services, engines, pictures).by_kind(),
            Kind.BATCH: gatherer.handle,
            Kind.REINDEX: reindexer.handle,
        }
        worker = Worker(
            services.jobs,
            {kind: handler for kind, handler in handlers.items() if kinds is None or kind in kinds},
            settings.worker,
            worker_id=worker_id,
            warm=lambda: warm(services, engines, started),
            loaded=lambda: loaded_models(engines.models),
        )
        upkeep = Upkeep(
            worker_id=worker_id,
            ledger=services.ledger,
            jobs=services.jobs,
            index=engines.index,
            blobs=services.blobs,
            options=UpkeepOptions(),
            intake=IntakeOptions(),
        )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(upkeep.run()), group.create_task(_stop_when(stop, worker))]
                await worker.run()
                for task in tasks:
                    task.cancel()
        except* PenstockError as errors:
            raise errors.exceptions[0] from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """What a worker has and an api has not."""

    models: ModelPool
    loading: asyncio.Task[None]
    """Of the models and of the parsers, which began when they were opened."""
    index: IndexStore
    writer: IndexWriter
    parsers: ParserPool
    cache: ContentCache
    generator: Generator | None
    reader: Generator | None
    """The model that looks at pictures: the one for it, or the generator where that takes them."""
    drawers: ParserPool


@asynccontextmanager
async def open_engines(settings: Settings) -> AsyncIterator[Engines]:
    """Opens them. Models and parsers begin to load meanwhile: to import an index engine takes as long as that."""
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(ModelPool(settings.models, registry=prometheus_client.REGISTRY))
        parsers = await stack.enter_async_context(ParserPool(settings.parsing))
        loading = asyncio.create_task(_load(models, parsers), name="load")
        stack.push_async_callback(_end, loading)
        index = await stack.enter_async_context(await _off_the_loop(lambda: make_index(settings)))
        cache = await stack.enter_async_context(open_cache(settings.cache_url, settings.cache))
        generator = await _open_generator(stack, settings.generator)
        vision = await _open_generator(stack, settings.vision)
        yield Engines(
            models=models,
            loading=loading,
            index=index,
            writer=await stack.enter_async_context(IndexWriter(index)),
            parsers=parsers,
            cache=await stack.enter_async_context(ContentCache(cache, settings.cache.ttl_s)),
            generator=generator,
            reader=vision or (generator if generator and generator.sees else None),
            drawers=await stack.enter_async_context(settings.images.parser_pool()),
        )


async def _load(models: ModelPool, parsers: ParserPool) -> None:
    await asyncio.gather(models.preload(), parsers.prewarm())


async def _off_the_loop(make: Callable[[], IndexStore]) -> IndexStore:
    with ThreadPoolExecutor(1, thread_name_prefix="import-index") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, make)


async def _end(loading: asyncio.Task[None]) -> None:
    """Whatever came of it was told to who waited for it, if anyone did."""
    loading.cancel()
    await asyncio.wait({loading})
    if not loading.cancelled():
        loading.exception()


async def _open_generator(stack: AsyncExitStack, options: GeneratorOptions) -> Generator | None:
    return await stack.enter_async_context(OpenAIGenerator(options)) if options.configured else None


def make_handlers(services: Services, engines: Engines, pictures: PictureIndexer) -> Handlers:
    """The pipeline over these services and engines."""
    return Handlers(
        ledger=services.ledger,
        ingestor=Ingestor(
            ledger=services.ledger,
            blobs=services.blobs,
            writer=engines.writer,
            parsers=pictures.reader,
            pictures=pictures,
            models=engines.models,
            cache=engines.cache,
            options=IngestOptions(),
        ),
        retriever=Retriever(services.ledger, engines.index, engines.models),
        answerer=Answerer(engines.generator, services.settings.answer, reader=engines.reader),
        pictures=Pictures(services.blobs, engines.drawers, engines.reader, services.settings.images),
    )


def make_picture_indexer(services: Services, engines: Engines) -> PictureIndexer:
    """What embeds the pictures in documents; its `reader` reads the documents as well."""
    return PictureIndexer(
        blobs=services.blobs,
        index=engines.index,
        writer=engines.writer,
        reader=DocumentReader(engines.parsers, engines.reader, services.settings.images, engines.cache),
        models=engines.models,
        cache=engines.cache,
    )


def make_index(settings: Settings) -> IndexStore:
    """The index of the settings, not opened yet, with the other engines that collections may have been moved to."""
    main = open_index(settings.index_url, settings.stores)
    others = {name: open_index(url.get_secret_value(), settings.stores) for name, url in settings.index_engines.items()}
    return RoutedIndex(main, others)


def open_sources(services: Services) -> Sources:
    """What a batch may be made of, as the settings allow."""
    settings = services.settings
    return Sources(
        ledger=services.ledger,
        blobs=services.blobs,
        fetcher=services.fetcher,
        archives=settings.archives,
        allowed_folders=settings.api.allowed_folders,
        spool_folder=settings.data_dir if settings.data_dir.is_dir() else None,
    )


async def warm(services: Services, engines: Engines, started: Callable[[], None]) -> Sequence[str]:
    """Loads everything that the first job would else have to wait for; returns the names of the models."""
    await engines.loading
    if engines.reader or services.settings.models.image_embedders:
        await engines.drawers.prewarm()
    retriever = Retriever(services.ledger, engines.index, engines.models)
    with suppress(TimeoutError):
        async with asyncio.timeout(WARM_UP_S):
            await ask_collections(retriever, await services.ledger.list_collections(None))
    started()
    return [info.name for info in engines.models.infos()]


def loaded_models(models: ModelPool) -> Sequence[LoadedModel]:
    """What the pool has open now, for the registry."""
    return [
        LoadedModel(
            name=info.name,
            kind=info.kind,
            dimensions=info.dimensions,
            device=info.device,
            precision=info.precision,
            memory_bytes=info.memory_bytes,
        )
        for info in models.infos()
    ]


async def ask_collections(retriever: Retriever, collections: Sequence[Collection]) -> None:
    """Asks the first collections what nobody waits for. One that cannot be searched is named in the log."""
    answerer = Answerer()
    for collection in collections[:WARMED_COLLECTIONS]:
        for question in WARM_UP_QUESTIONS:
            try:
                found = await retriever.retrieve(collection, question, limit=8)
            except PenstockError as exc:
                logger.warning("Collection %s cannot be searched: %s", collection.name, exc)
                break
            await answerer.answer(question, found.hits)


async def _stop_when(stop: StopSignal, worker: Worker) -> None:
    await stop.wait()
    worker.stop()
