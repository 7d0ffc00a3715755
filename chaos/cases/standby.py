"""Case 1 again and again: the worker of `penstock serve` killed as soon as it is back, and its standby with it."""

import asyncio
import time

from chaos.arena import READY_WITHIN_S, Arena, Engine
from chaos.desk import Desk, note
from chaos.processes import Serve
from chaos.tally import SERVE_LIMIT_S, Tally
from penstock.jobs import JobStore, open_store

DOCUMENTS = 20
WITHIN_S = 90.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine) for engine in arena.engines]


async def on(arena: Arena, engine: Engine) -> Tally:
    """Twice in a row each time, for a document may die with its worker no more than three times."""
    times = arena.few(3, 12)
    what = f"worker killed twice in a row, {times} times, its standby too ({engine})"
    tally = Tally(case="1e", what=what, limit_s=SERVE_LIMIT_S)
    house = await arena.house(engine)
    desk = await Desk.open(house)
    jobs: dict[str, str] = {}
    deaths: list[float] = []
    async with open_store(house.jobs_url) as store:
        for number in range(times):
            jobs |= await desk.upload([note(number * DOCUMENTS + i, sentences=40) for i in range(DOCUMENTS)])
            await asyncio.sleep(arena.rng.uniform(0, 0.5))
            if number % 3 == 2:
                house.kill("standby")
            dead = house.children().get("worker", 0)
            deaths += house.kill("worker")
            await back(house, store, dead)
            await asyncio.sleep(arena.rng.uniform(0, 0.3))
            deaths += house.kill("worker")
            await desk.settled(WITHIN_S)
    await desk.judge(tally, dict.fromkeys(jobs), list(jobs.values()), deaths, WITHIN_S)
    return tally


async def back(house: Serve, store: JobStore, dead: int) -> None:
    """Until a worker is ready that is not the dead one, which the registry does not know yet to be so."""
    until = time.monotonic() + READY_WITHIN_S
    while house.children().get("worker") not in {one.pid for one in await store.workers() if one.ready} - {dead}:
        if time.monotonic() > until:
            raise TimeoutError(f"no worker was ready within {READY_WITHIN_S:g} s")
        await asyncio.sleep(0.02)
