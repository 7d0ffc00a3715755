"""A blob store of every engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.blobs import BlobStore, open_blobs


@pytest.fixture(params=["memory", "folder"])
async def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    url = "memory://" if request.param == "memory" else f"file://{tmp_path / 'blobs'}"
    async with open_blobs(url) as opened:
        yield opened
