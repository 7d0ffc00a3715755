"""Case 8: SIGTERM under load. Jobs are finished or handed back within the grace; a second SIGTERM ends at once."""

import asyncio
import signal
import time

from chaos.arena import Arena, Engine, ready
from chaos.desk import Desk, note
from chaos.judge import judge_effects, judge_jobs, read_effects
from chaos.tally import Tally
from penstock.jobs import open_store
from penstock.jobs.base import JobFilter
from penstock.types import JobState, NewJob

JOBS = 600
WITHIN_S = 90.0
RUNNING = JobFilter(states=frozenset({JobState.RUNNING}))


async def run(arena: Arena) -> list[Tally]:
    workers = [await one_worker(arena, engine) for engine in arena.engines]
    return workers + [await serve(arena, engine) for engine in arena.engines[: arena.few(1, 2)]]


async def one_worker(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="8", what=f"SIGTERM to a worker among {JOBS} jobs ({engine})")
    async with arena.crew(engine, 1) as (store, crew):
        new = [NewJob(kind="work", payload={"seconds": 0.3}) for _ in range(JOBS)]
        job_ids = [one.job.id for one in await store.enqueue(new)]
        while not read_effects(crew.effects):
            await asyncio.sleep(0.01)
        (worker,) = crew.members
        worker.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(worker.wait, 20)
        tally.require(status == 0, f"exit status {status}")
        tally.require(await store.count(RUNNING) == 0, "jobs were left running")
        crew.members.clear()
        crew.start()
        await ready(store, 1)
        jobs = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S)
        judge_effects(tally, read_effects(crew.effects), jobs, {})
        tally.require(not any(job.failures for job in jobs), "a job waited for its lease to end")
    return tally


async def serve(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="8b", what=f"SIGTERM to serve during ingest, then a second one ({engine})")
    documents = [note(i) for i in range(arena.few(200, 600))]
    async with arena.own_house(engine) as house:
        await house.start()
        desk = await Desk.open(house)
        jobs = await desk.upload(documents)
        await asyncio.sleep(0.5)
        house.signal(signal.SIGTERM)
        status = await house.ended(20)
        tally.require(status == 0, f"exit status {status} after one SIGTERM")
        async with open_store(house.jobs_url) as store:
            tally.require(await store.count(RUNNING) == 0, "jobs were left running")
        await house.start()
        house.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)  # the system makes one of two signals that come together
        house.signal(signal.SIGTERM)
        asked = time.monotonic()
        tally.require(await house.ended(10) is not None, "it lived on after a second SIGTERM")
        tally.require(time.monotonic() - asked < 3, f"{time.monotonic() - asked:.1f} s after a second SIGTERM")
        await house.start()
        await desk.judge(tally, dict.fromkeys(one["name"] for one in documents), list(jobs.values()), [], WITHIN_S)
    return tally
