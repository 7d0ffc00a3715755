"""Every engine behind one fixture: `make_store(**options)` opens a store; calling it again opens the same data."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from penstock.jobs import JobsOptions, JobStore, open_store


class MakeStore(Protocol):
    async def __call__(self, **options: Any) -> JobStore: ...


ENGINES = ["memory", "sqlite"]


@pytest.fixture
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of the engine that the test is parametrised with."""
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/jobs.db",
    }
    return urls[request.param]()


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
        marker = metafunc.definition.get_closest_marker("engines")
        metafunc.parametrize("engine_url", marker.args if marker else ENGINES, indirect=True)
