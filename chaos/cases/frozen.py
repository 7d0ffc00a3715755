"""Case 5: a worker is stopped past its lease and goes on later; what it still says is refused."""

import asyncio
import signal
import time

from chaos.arena import Arena, Engine
from chaos.judge import judge_effects, judge_jobs, read_effects
from chaos.tally import Tally
from penstock.jobs.base import JobFilter
from penstock.types import JobState, NewJob

IN_FLIGHT = 20
WITHIN_S = 60.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine, arena.few(1, 4)) for engine in arena.engines]


async def on(arena: Arena, engine: Engine, times: int) -> Tally:
    tally = Tally(case="5", what=f"worker frozen past its lease, then awake again ({engine})")
    async with arena.crew(engine, 2) as (store, crew):
        for _ in range(times):
            new = [NewJob(kind="work", payload={"seconds": 1.5}) for _ in range(IN_FLIGHT)]
            job_ids = [one.job.id for one in await store.enqueue(new)]
            while await store.count(JobFilter(states=frozenset({JobState.QUEUED}))):
                await asyncio.sleep(0.02)
            await asyncio.sleep(arena.rng.uniform(0, 0.3))
            zombie = crew.busiest()
            zombie.send_signal(signal.SIGSTOP)
            frozen = {zombie.pid: time.time()}
            began = {effect.job for effect in read_effects(crew.effects) if effect.pid == zombie.pid}
            done = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S)
            judge_effects(tally, read_effects(crew.effects), done, frozen)
            zombie.send_signal(signal.SIGCONT)
            (after,) = await store.enqueue([NewJob(kind="work")])
            await store.wait(after.job.id, timeout_s=WITHIN_S)
            await asyncio.sleep(3)  # whatever the zombie has to say is said by now
            for job in done:
                now = await store.get(job.id)
                stolen = now != job or (job.id in began and job.attempt > 1 and job.result != job.attempt)
                tally.doubled += stolen
                if stolen:
                    tally.notes.append(f"job {job.id}: {job} became {now}")
            tally.require(any(job.attempt > 1 for job in done), "the frozen worker held no job")
            tally.require(zombie.poll() is None, "the frozen worker did not live on")
    return tally
