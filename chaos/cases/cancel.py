"""Case 10: cancel in every state, also racing with the end: one final state that never flips, and nothing half done."""

import asyncio

from chaos.arena import Arena, Engine
from chaos.desk import Desk, note
from chaos.judge import ENDED, judge_jobs
from chaos.tally import Tally
from penstock.jobs import open_store
from penstock.types import JobState, NewJob

JOBS = 200
WITHIN_S = 60.0


async def run(arena: Arena) -> list[Tally]:
    races = [await race(arena, engine) for engine in arena.engines]
    return races + [await documents(arena, engine) for engine in arena.engines]


async def race(arena: Arena, engine: Engine) -> Tally:
    """Test jobs of 50 ms, each cancelled at a random moment around that."""
    tally = Tally(case="10", what=f"{JOBS} jobs cancelled at any moment ({engine})")
    async with arena.crew(engine, 2) as (store, _):
        new = [NewJob(kind="talk", payload={"seconds": 0.05}) for _ in range(JOBS)]
        job_ids = [one.job.id for one in await store.enqueue(new)]

        async def cancel(job_id: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await store.cancel(job_id)

        await asyncio.gather(*(cancel(job_id, arena.rng.uniform(0, 1.0)) for job_id in job_ids))
        jobs = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S, states=ENDED)
        await asyncio.sleep(1)
        for job in jobs:
            now = await store.get(job.id)
            tally.doubled += now.state is not job.state
            tally.doubled += now.state is JobState.CANCELLED and now.result is not None
        how = [job.state for job in jobs]
        tally.require({JobState.CANCELLED, JobState.SUCCEEDED} == set(how), f"no race: all were {set(how)}")
    return tally


async def documents(arena: Arena, engine: Engine) -> Tally:
    """Documents cancelled on their way: either searchable, whole, or not at all."""
    tally = Tally(case="10b", what=f"documents cancelled on their way ({engine})")
    house = await arena.house(engine)
    desk = await Desk.open(house)
    jobs = await desk.upload([note(i, sentences=40) for i in range(arena.few(40, 120))])

    async def cancel(job_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await desk.send("POST", f"/v1/jobs/{job_id}/cancel", accept={200})

    await asyncio.gather(*(cancel(job_id, arena.rng.uniform(0, 4.0)) for job_id in jobs.values()))
    found = await desk.settled(WITHIN_S)
    tally.runs = len(jobs)
    tally.stuck += sum(one["status"] == "pending" for one in found)
    async with open_store(house.jobs_url) as store:
        counted = tally.runs
        await judge_jobs(tally, store, list(jobs.values()), within_s=WITHIN_S, states=ENDED)
        tally.runs = counted
    statuses = {one["name"]: one["status"] for one in found}
    for one in found:
        reply = await desk.send("GET", f"/v1/documents/{one['id']}/chunks", params={"limit": 1}, accept={200})
        visible = bool(reply.json()["chunks"])
        if visible != (statuses[one["name"]] == "done"):
            tally.doubled += 1
            tally.notes.append(f"document {one['name']} is {one['status']}, and its chunks are visible: {visible}")
    tally.require("cancelled" in statuses.values(), "nothing was cancelled in time")
    await desk.judge_index(tally)
    return tally
