"""Case 6: the wall clock jumps by an hour, forth and back, for all workers or for one of them.

The jump is made in the workers' own `time.time`. Leases are timed by the machine's monotonic clock (SQLite) or by the
server's clock (Redis), which no process's own clock decides over.
"""

import asyncio
import signal
import time

from chaos.arena import Arena, Engine, ready
from chaos.judge import judge_effects, judge_jobs, read_effects
from chaos.processes import Control
from chaos.tally import Tally
from penstock.jobs.base import JobFilter
from penstock.types import JobState, NewJob

HOUR_S = 3600.0
IN_FLIGHT = 20
WITHIN_S = 60.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine) for engine in arena.engines]


async def on(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="6", what=f"wall clock jumps by an hour, forth and back ({engine})")
    async with arena.crew(engine, 1) as (store, crew):
        odd = Control(crew.effects.parent / "odd")  # the second worker's clock is its own
        crew.start(control=odd)
        await ready(store, 2)
        new = [NewJob(kind="work", payload={"seconds": 8.0}) for _ in range(IN_FLIGHT)]
        job_ids = [one.job.id for one in await store.enqueue(new)]
        for all_s, odd_s in ((HOUR_S, HOUR_S), (-HOUR_S, -HOUR_S), (0.0, HOUR_S), (0.0, -HOUR_S), (0.0, 0.0)):
            crew.control.turn_clock(all_s)
            odd.turn_clock(odd_s)
            await asyncio.sleep(1.2)  # a few sweeps under this clock
        jobs = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S)
        judge_effects(tally, read_effects(crew.effects), jobs, {})
        early = sum(job.attempt != 1 for job in jobs)
        tally.doubled += early
        tally.require(early == 0, f"{early} leases ended early")

        job_ids = [one.job.id for one in await store.enqueue(new)]
        while await store.count(JobFilter(states=frozenset({JobState.QUEUED}))):
            await asyncio.sleep(0.02)
        crew.control.turn_clock(-HOUR_S)  # a lease timed by this clock would last an hour more
        odd.turn_clock(-HOUR_S)
        victim = crew.busiest()
        victim.send_signal(signal.SIGSTOP)  # not killed: that its neighbour would see at once, without any lease
        frozen = {victim.pid: time.time()}
        jobs = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S)
        judge_effects(tally, read_effects(crew.effects), jobs, frozen)
    return tally
