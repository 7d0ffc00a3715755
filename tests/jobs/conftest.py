"""Every engine behind one fixture: `make_store(**options)` opens a store; calling it again opens the same data."""

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest

from penstock.ids import new_id
from penstock.jobs import JobsOptions, JobStore, open_store


class MakeStore(Protocol):
    async def __call__(self, **options: Any) -> JobStore: ...


PORTS = (15_000, 22_000)
"""Below those that Linux gives to outgoing connections (from 32,768), so that nobody takes one between two starts of a
server; a node of a cluster also listens 10,000 ports above its own."""


def free_port() -> int:
    """One that nobody listens on."""
    while True:
        port = random.randrange(*PORTS)
        with suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """A real Redis of our own on a free port, with its files in a folder of the test run."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.settings = settings
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
             "--appendonly", "yes", *self.settings],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    return
            assert self.process.poll() is None, "redis-server did not start"
            time.sleep(0.01)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def need_redis() -> None:
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed; CI must test the Redis engine")
        pytest.skip("needs redis-server on the PATH (apt-get install redis-server)")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests; each test has a prefix of its own."""
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may kill, start and flush."""
    need_redis()
    server = RedisServer(tmp_path)
    yield server
    server.kill()


ENGINES = ["memory", "sqlite", "redis"]


@pytest.fixture
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of the engine that the test is parametrised with."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"{server.url}?prefix={new_id('test')}"
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"


@pytest.fixture
async def make_store(engine_url: str) -> AsyncIterator[MakeStore]:
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> JobStore:
            return await stack.enter_async_context(open_store(engine_url, JobsOptions(**options)))

        yield make


@pytest.fixture
async def store(make_store: MakeStore) -> JobStore:
    return await make_store()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_url" in metafunc.fixturenames:
        metafunc.parametrize("engine_url", ENGINES, indirect=True)
