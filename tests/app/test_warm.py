"""What a worker does before it takes work must not keep the work waiting."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock.app import Services
from penstock.app.worker import Engines, warm
from penstock.settings import Settings


class Quiet:
    """Models and parsers that are loaded in no time; an index that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def preload(self) -> None: ...

    async def prewarm(self) -> None: ...

    def infos(self) -> Sequence[Any]:
        return ()

    async def retrieve(self, *_: object, **__: object) -> None:
        self.asked.set()
        await asyncio.Event().wait()

    async def list_collections(self, tenant: str | None) -> Sequence[Any]:
        return [SimpleNamespace(name="slow")]


async def test_a_collection_that_does_not_answer_does_not_hold_the_worker_up(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, ready = Quiet(), asyncio.Event()
    monkeypatch.setattr("penstock.app.worker.Retriever", lambda *_: quiet)
    services = SimpleNamespace(ledger=quiet, settings=Settings())
    loading = asyncio.create_task(quiet.preload())
    engines = SimpleNamespace(loading=loading, models=quiet, parsers=quiet, index=None, reader=None)
    await warm(cast("Services", services), cast("Engines", engines), ready.set)
    assert quiet.asked.is_set()
    assert ready.is_set()
