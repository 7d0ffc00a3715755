from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.stores import IndexStore, open_index

ENGINES = ["memory://", "lancedb://{folder}"]


@pytest.fixture(params=ENGINES, ids=lambda url: str(url).partition(":")[0])
def index_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.param).format(folder=tmp_path / "index")


@pytest.fixture
async def index(index_url: str) -> AsyncIterator[IndexStore]:
    async with open_index(index_url) as store:
        yield store
