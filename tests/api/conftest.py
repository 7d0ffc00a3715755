"""An app over in-memory stores, and clients that call it in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from penstock.api.main import create_app
from penstock.api.protocol import PatientProtocol
from penstock.app import Services
from penstock.blobs import open_blobs
from penstock.errors import ProviderError, Unavailable
from penstock.fetch import Fetcher
from penstock.jobs import WorkerOptions, open_store
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import Handler, JobContext, Worker
from penstock.ledger import open_ledger
from penstock.pipeline.intake import Intake
from penstock.pipeline.requests import Kind
from penstock.settings import ApiOptions, Settings
from penstock.types import JSON


@asynccontextmanager
async def open_services(data_dir: Path, **options: Any) -> AsyncIterator[Services]:
    settings = Settings(data_dir=data_dir, api=ApiOptions(**options))
    async with (
        open_ledger("memory://") as ledger,
        open_store("memory://") as jobs,
        open_blobs("memory://") as blobs,
        Fetcher(settings.fetch) as fetcher,
    ):
        intake = Intake(ledger, jobs)
        yield Services(settings=settings, ledger=ledger, jobs=jobs, blobs=blobs, intake=intake, fetcher=fetcher)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with open_services(tmp_path) as opened:
        yield opened


@pytest.fixture
def nothing_stored(services: Services) -> Callable[[], Awaitable[bool]]:
    """Whether there is no blob, no document and no job."""

    async def nothing_stored() -> bool:
        blobs = [blob async for blob in services.blobs.list()]
        documents = (await services.ledger.list_documents("default")).documents
        return not blobs and not documents and not await services.jobs.count(JobFilter())

    return nothing_stored


Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Returns once a condition holds that no event tells; the test's time-out bounds it."""

    async def until(condition: Callable[[], Awaitable[bool]]) -> None:
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    return until


@pytest.fixture
def app(services: Services) -> FastAPI:
    return create_app(services)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
async def api_key(services: Services) -> str:
    """From now on the server needs a key; this one may do everything that the default tenant may."""
    _, secret = await services.ledger.create_api_key("default", "mine", ())
    return secret


async def _search(context: JobContext) -> JSON:
    """Finds nothing, unless the index is away or slow."""
    match context.job.payload["query"]:
        case "away":
            raise Unavailable("Could not search the collection: refused", code="index_unavailable")
        case "slow":
            await asyncio.Event().wait()
    return {"hits": [], "collection_version": 1, "timings_ms": {"total": 1.0}}


async def _question(context: JobContext) -> JSON:
    """Answers at once, unless the question says what else to do."""
    match context.job.payload["question"]:
        case "fail":
            raise ProviderError("The model is away.", code="provider_unreachable")
        case "hang":
            await asyncio.Event().wait()
        case "stream":
            await context.progress("generate", 0, 1)
            for text in ("One ", "two ", "three."):
                await context.emit("delta", {"text": text})
    return {"text": "Yes [1].", "found": True, "citations": [], "model": "test", "notes": []}


async def _ingest(context: JobContext) -> JSON:
    return {"chunks": 0, "pages": 0}


@asynccontextmanager
async def _working(services: Services) -> AsyncIterator[Worker]:
    handlers: Mapping[str, Handler] = {Kind.SEARCH: _search, Kind.QUESTION: _question, Kind.INGEST: _ingest}
    running = Worker(services.jobs, handlers, WorkerOptions(grace_s=0.1))
    async with asyncio.TaskGroup() as group:
        group.create_task(running.run())
        yield running
        running.stop()


@pytest.fixture
async def worker(services: Services) -> AsyncIterator[Worker]:
    """A worker with handlers that do little."""
    async with _working(services) as running:
        yield running


class Server:
    """A real server on a port of the system's choice. Its `url` is good while the context is open."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=0, http=PatientProtocol, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        listener = config.bind_socket()
        self.port = listener.getsockname()[1]
        await self._server.startup([listener])
        self._loop = asyncio.create_task(self._server.main_loop())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        await self._loop
        await self._server.shutdown()


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[Server]:
    async with Server(app) as running:
        yield running


@asynccontextmanager
async def _serving(data_dir: Path) -> AsyncIterator[tuple[Services, str]]:
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(data_dir, max_wait_s=1.0))
        await stack.enter_async_context(_working(services))
        server = await stack.enter_async_context(Server(create_app(services)))
        yield services, server.url


@pytest.fixture
def serving() -> Callable[[Path], Any]:
    """Opens services with a worker and a real server: `async with serving(folder) as (services, url)`."""
    return _serving
