"""Case 13: a hundred thousand queued jobs. Enqueue and claim stay as quick as on an empty queue, restart is quick."""

import asyncio
import statistics
import time

from chaos.arena import Arena, Engine
from chaos.judge import read_effects
from chaos.processes import Crew
from chaos.tally import Tally
from penstock.ids import new_id
from penstock.jobs import JobStore, open_store
from penstock.jobs.base import Outcome
from penstock.types import NewJob

BACKLOG = 100_000
SAMPLES = 400
ROUNDS = 3
MOST = 2.0
FIRST_JOB_S = 10.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine) for engine in arena.engines]


async def on(arena: Arena, engine: Engine) -> Tally:
    backlog = arena.few(20_000, BACKLOG)
    tally = Tally(case="13", what=f"{backlog:,} queued jobs ({engine})")
    name = new_id("backlog")
    url = await arena.url(engine, name)
    async with open_store(url) as store:
        for _ in range(backlog // 10_000):
            await store.enqueue([NewJob(kind="work") for _ in range(100)])  # warm: no first page, no first plan
        empty = await p99s(store)
        for _ in range(0, backlog, 1000):
            await store.enqueue([NewJob(kind="work") for _ in range(1000)])
        full = await p99s(store)
    for what, before, after in zip(("enqueue", "claim"), empty, full, strict=True):
        tally.notes.append(f"{what} p99 {before * 1e3:.2f} ms on an empty queue, {after * 1e3:.2f} ms on a full one")
        tally.require(after < MOST * before + 0.001, f"{what} is {after / before:.1f} times as slow")
    tally.runs = backlog
    crew = Crew(arena.folder / name, url)
    try:
        started = time.monotonic()
        crew.start()
        while not read_effects(crew.effects):
            await asyncio.sleep(0.02)
        first_s = time.monotonic() - started
    finally:
        await asyncio.to_thread(crew.close)
    tally.notes.append(f"first job {first_s:.1f} s after the start of a worker")
    tally.require(first_s < FIRST_JOB_S, "the first job came late")
    return tally


async def p99s(store: JobStore) -> tuple[float, float]:
    """Of enqueue and of claim, each the best of a few rounds: what the machine does besides is not ours."""
    rounds = [await one_round(store) for _ in range(ROUNDS)]
    return min(enqueue for enqueue, _ in rounds), min(claim for _, claim in rounds)


async def one_round(store: JobStore) -> tuple[float, float]:
    enqueues, claims = [], []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        await store.enqueue([NewJob(kind="other")])
        enqueues.append(time.perf_counter() - start)
    for _ in range(SAMPLES):
        start = time.perf_counter()
        (job,) = await store.lease("chaos", kinds=["other"], n=1)
        claims.append(time.perf_counter() - start)
        await store.finish([(job.id, job.attempt, Outcome())])
    return statistics.quantiles(enqueues, n=100)[-1], statistics.quantiles(claims, n=100)[-1]
