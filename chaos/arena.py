"""Where the cases take place: a folder, a Redis, one `penstock serve` an engine, and crews of job workers."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from chaos.processes import Crew, Redis, Serve
from penstock.ids import new_id
from penstock.jobs import JobStore, open_store

Engine: TypeAlias = Literal["sqlite", "redis"]
READY_WITHIN_S = 60.0


@dataclass(slots=True, kw_only=True)
class Arena:
    """Lives for one chaos run; its processes end with it. `rng` gives every random choice of the cases."""

    folder: Path
    rng: random.Random
    quick: bool
    minutes: float
    engines: tuple[Engine, ...]
    _redis: Redis | None = None
    _houses: dict[Engine, Serve] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> "Arena":
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def few(self, quick: int, full: int) -> int:
        return quick if self.quick else full

    async def redis(self) -> Redis:
        if self._redis is None:
            self._redis = Redis(self.folder / "redis")
            self._stack.callback(self._redis.kill)
            await asyncio.to_thread(self._redis.start)
        return self._redis

    async def url(self, engine: Engine, name: str) -> str:
        """Of an empty job store."""
        if engine == "redis":
            return (await self.redis()).url(name)
        return f"sqlite:///{self.folder}/{name}.sqlite3"

    async def house(self, engine: Engine) -> Serve:
        """A `penstock serve` that runs; all cases share it, each in collections of its own."""
        if engine not in self._houses:
            url = "" if engine == "sqlite" else await self.url("redis", new_id("house"))
            folder = self.folder / f"house-{engine}"
            folder.mkdir()
            self._houses[engine] = Serve(folder, url)
            self._stack.push_async_callback(self._houses[engine].close)
        house = self._houses[engine]
        if not house.running:
            await house.start()
        return house

    @asynccontextmanager
    async def own_house(self, engine: Engine, **settings: str) -> AsyncIterator[Serve]:
        """A fresh one of the case's own, not started yet."""
        name = new_id("own")
        (self.folder / name).mkdir()
        serve = Serve(self.folder / name, "" if engine == "sqlite" else await self.url("redis", name), **settings)
        try:
            yield serve
        finally:
            await serve.close()

    @asynccontextmanager
    async def crew(self, engine: Engine, members: int) -> AsyncIterator[tuple[JobStore, Crew]]:
        """An empty job store, and workers on it that are ready."""
        name = new_id("crew")
        url = await self.url(engine, name)
        crew = Crew(self.folder / name, url)
        async with open_store(url) as store:
            try:
                for _ in range(members):
                    crew.start()
                await ready(store, members)
                yield store, crew
            finally:
                await asyncio.to_thread(crew.close)


async def ready(store: JobStore, members: int) -> None:
    """Until so many workers are ready."""
    until = time.monotonic() + READY_WITHIN_S
    while sum(worker.ready for worker in await store.workers()) < members:
        if time.monotonic() > until:
            raise TimeoutError(f"{members} workers were not ready within {READY_WITHIN_S:g} s")
        await asyncio.sleep(0.02)


def spread(rng: random.Random, things: Iterable[str], n: int) -> list[str]:
    """`n` of them, each as often as any other, in random order."""
    whole = list(things)
    chosen = [whole[i % len(whole)] for i in range(n)]
    rng.shuffle(chosen)
    return chosen
