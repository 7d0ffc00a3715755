"""Case 7: jobs that kill their process go to the dead letters after their attempts, and all others flow on."""

import asyncio
from contextlib import suppress

from chaos.arena import Arena, Engine, ready
from chaos.desk import Desk, note
from chaos.judge import judge_jobs
from chaos.tally import Tally
from penstock.jobs import open_store
from penstock.types import JobState, NewJob

WAYS = ("exit", "segfault", "oom")
INNOCENT = 30
WITHIN_S = 120.0


async def run(arena: Arena) -> list[Tally]:
    served = [await under_serve(arena, engine) for engine in arena.engines[: arena.few(1, 2)]]
    return [await among_workers(arena, engine) for engine in arena.engines] + served


async def among_workers(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="7", what=f"poison among {INNOCENT} innocent jobs, two workers ({engine})")
    async with arena.crew(engine, 2) as (store, crew):
        respawning = asyncio.create_task(crew.respawn())
        poison = [NewJob(kind="poison", payload={"how": how}) for how in WAYS]
        innocent = [NewJob(kind="work", payload={"seconds": 0.2}) for _ in range(INNOCENT)]
        accepted = [one.job.id for one in await store.enqueue([*poison, *innocent])]
        await judge_jobs(tally, store, accepted[len(WAYS) :], within_s=WITHIN_S)
        dead = await judge_jobs(
            tally, store, accepted[: len(WAYS)], within_s=WITHIN_S, states=frozenset({JobState.FAILED})
        )
        for job in dead:
            tally.require(job.error is not None and job.error.code == "worker_died", f"{job.id}: {job.error}")
            tally.require(job.attempt == job.max_attempts, f"{job.id} had {job.attempt} attempts")
        await ready(store, 2)
        respawning.cancel()
        with suppress(asyncio.CancelledError):
            await respawning
    return tally


async def under_serve(arena: Arena, engine: Engine) -> Tally:
    """A document that kills whoever reads it: it ends failed, with the reason; its neighbours end done."""
    tally = Tally(case="7b", what=f"a document that kills the worker of serve ({engine})")
    house = await arena.house(engine)
    desk = await Desk.open(house)
    poison = [{"name": f"poison-{how}.md", "text": f"# {how}"} for how in WAYS[: arena.few(1, 3)]]
    jobs = await desk.upload([*poison, *(note(i) for i in range(INNOCENT))])
    documents = {one["name"]: one for one in await desk.settled(WITHIN_S)}
    tally.runs = len(jobs)
    dead = {one["name"] for one in poison}
    for name in jobs:
        status = documents[name]["status"] if name in documents else "gone"
        wanted = "failed" if name in dead else "done"
        tally.stuck += status == "pending"
        tally.lost += status not in {"pending", wanted}
        if status != wanted:
            tally.notes.append(f"document {name} is {status}, not {wanted}")
    async with open_store(house.jobs_url) as store:
        for name in dead:
            job = await store.get(jobs[name])
            tally.require(job.error is not None and job.error.code == "worker_died", f"{name}: {job.error}")
    return tally
