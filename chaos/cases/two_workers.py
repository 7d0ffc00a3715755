"""Case 1 among several workers: one is killed with jobs in flight on an otherwise quiet queue, another takes them."""

import asyncio
import time
from collections.abc import Mapping

from chaos.arena import Arena, Engine, ready
from chaos.judge import judge_effects, judge_jobs, read_effects
from chaos.processes import Crew
from chaos.tally import Tally
from penstock.jobs import JobStore
from penstock.jobs.base import JobFilter
from penstock.types import JobState, NewJob

IN_FLIGHT = 40
WITHIN_S = 60.0
IDLE_S = 10.0
IDLE_SHARE = 0.02


async def run(arena: Arena) -> list[Tally]:
    return [tally for engine in arena.engines for tally in await on(arena, engine)]


async def on(arena: Arena, engine: Engine) -> list[Tally]:
    killed = Tally(case="1b", what=f"one of two workers killed on a quiet queue ({engine})")
    blocked = Tally(case="1c", what=f"event loop blocked for longer than a lease ({engine})")
    idle = Tally(case="1d", what=f"idle processes use at most {IDLE_SHARE:.0%} of a processor ({engine})")
    async with arena.crew(engine, 2) as (store, crew):
        house = await arena.house(engine)
        await rest(idle, {"a worker of test jobs": crew.members[0].pid} | house.children())
        await kill_one_after_another(killed, store, crew, arena.few(2, 8))
        await block(blocked, store, crew)
    return [killed, blocked, idle]


async def rest(tally: Tally, pids: Mapping[str, int]) -> None:
    tally.runs = len(pids)
    await asyncio.sleep(IDLE_S / 2)  # what they still had to do
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(IDLE_S)
    for name, pid in pids.items():
        share = (cpu_s(pid) - before[name]) / IDLE_S
        tally.notes.append(f"idle: {name} uses {share:.1%}")
        tally.require(share <= IDLE_SHARE, f"idle, {name} uses {share:.1%}")


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def kill_one_after_another(tally: Tally, store: JobStore, crew: Crew, times: int) -> None:
    for _ in range(times):
        accepted = await store.enqueue([NewJob(kind="work", payload={"seconds": 1.0}) for _ in range(IN_FLIGHT)])
        while await store.count(JobFilter(states=frozenset({JobState.QUEUED}))):
            await asyncio.sleep(0.02)
        victim = crew.busiest()
        killed = {victim.pid: crew.kill(victim)}
        jobs = await judge_jobs(tally, store, [one.job.id for one in accepted], within_s=WITHIN_S)
        judge_effects(tally, read_effects(crew.effects), jobs, killed)
        crew.start()
        await ready(store, 2)


async def block(tally: Tally, store: JobStore, crew: Crew) -> None:
    """A heartbeat on the loop would lose the lease, and the job would run twice at once."""
    accepted = await store.enqueue(
        [NewJob(kind="block", payload={"seconds": store.options.lease_s * 1.7}) for _ in range(2)]
    )
    started = time.monotonic()
    jobs = await judge_jobs(tally, store, [one.job.id for one in accepted], within_s=WITHIN_S)
    judge_effects(tally, read_effects(crew.effects), jobs, {})
    tally.doubled += sum(job.attempt != 1 for job in jobs)
    tally.require(time.monotonic() - started > store.options.lease_s, "the loop was not blocked")
