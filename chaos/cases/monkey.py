"""Case 4: for minutes, with probability 0.3 every 5 seconds, something is killed (-9) under thousands of mixed jobs.

Side by side: `penstock serve` over SQLite (documents, questions, searches; its worker, its api, or everything dies),
and test jobs on Redis with three workers (quick, slow, talking and failing ones; a worker or Redis itself dies).
"""

import asyncio
import time
from contextlib import suppress

from chaos.arena import Arena, spread
from chaos.desk import Desk, note
from chaos.judge import judge_effects, judge_jobs, read_effects, serve_recoveries
from chaos.processes import Crew, Redis, Serve
from chaos.tally import SERVE_LIMIT_S, Tally
from penstock.errors import Unavailable
from penstock.jobs import JobStore, open_store
from penstock.types import NewJob, Priority

EVERY_S = 5.0
PROBABILITY = 0.3
JOBS = 2500
"""On each side: 5,000 in all."""
WITHIN_S = 300.0
MEMBERS = 3


async def run(arena: Arena) -> list[Tally]:
    count = arena.few(200, JOBS)
    return list(await asyncio.gather(served(arena, count), crewed(arena, count)))


async def served(arena: Arena, count: int) -> Tally:
    what = f"monkey, {arena.minutes:g} min, {count:,} documents and questions (serve)"
    tally = Tally(case="4", what=what, limit_s=SERVE_LIMIT_S)
    async with arena.own_house("sqlite") as house:
        await house.start()
        desk = await Desk.open(house)
        deaths: list[float] = []
        ends = time.monotonic() + arena.minutes * 60
        killing = asyncio.create_task(kill_served(arena, house, deaths, ends))
        documents: dict[str, str] = {}
        questions = []
        for number, kind in enumerate(spread(arena.rng, ("document", "document", "document", "question"), count)):
            if kind == "document":
                documents |= await desk.upload([note(number)])
            else:
                questions.append(await desk.ask(f"When must street lamp {number} be repaired?"))
            await pace(ends, count - number)
        await killing
        await desk.judge(tally, dict.fromkeys(documents), list(documents.values()), deaths, WITHIN_S)
        async with open_store(house.jobs_url) as store:
            await judge_jobs(tally, store, questions, within_s=WITHIN_S)
            tally.recoveries_s += await serve_recoveries(store, questions, deaths)
        tally.notes.append(f"{len(deaths)} times a worker was killed")
    return tally


async def kill_served(arena: Arena, house: Serve, deaths: list[float], ends: float) -> None:
    while time.monotonic() < ends:
        await asyncio.sleep(EVERY_S)
        if arena.rng.random() < PROBABILITY:
            victim = arena.rng.choice(["worker", "worker", "api"])
            at = house.kill(victim)
            if victim == "worker":
                deaths += at


async def crewed(arena: Arena, count: int) -> Tally:
    tally = Tally(case="4b", what=f"monkey, {arena.minutes:g} min, {count:,} test jobs, workers and Redis die (redis)")
    own = Redis(arena.folder / "monkey-redis")
    await asyncio.to_thread(own.start)
    crew = Crew(arena.folder / "monkey-crew", own.url("monkey"))
    try:
        for _ in range(MEMBERS):
            crew.start()
        async with open_store(crew.url) as store:
            killed: dict[int, float] = {}
            ends = time.monotonic() + arena.minutes * 60
            respawning = asyncio.create_task(crew.respawn())
            outages: list[tuple[float, float]] = []
            killing = asyncio.create_task(kill_crewed(arena, own, crew, killed, outages, ends))
            job_ids = []
            for number, kind in enumerate(spread(arena.rng, ("work", "work", "slow", "talk", "flaky"), count)):
                job_ids.append(await accept(store, arena, kind))
                await pace(ends, count - number)
            await killing
            jobs = await judge_jobs(tally, store, job_ids, within_s=WITHIN_S)
            respawning.cancel()
            with suppress(asyncio.CancelledError):
                await respawning
        judge_effects(tally, read_effects(crew.effects), jobs, killed, outages)
        tally.notes.append(f"{len(killed)} times a worker was killed, {len(outages)} times Redis")
    finally:
        await asyncio.to_thread(crew.close)
        own.kill()
    return tally


async def accept(store: JobStore, arena: Arena, kind: str) -> str:
    """The job's id is chosen here, so that a submit whose answer was cut off can be made again."""
    seconds = arena.rng.uniform(1.0, 6.0) if kind == "slow" else arena.rng.uniform(0.0, 0.5)
    priority = arena.rng.choice(list(Priority))
    job = NewJob(
        id=f"job_{arena.rng.randbytes(10).hex()}",
        kind="work" if kind == "slow" else kind,
        payload={"seconds": seconds, "failures": 1},
        priority=priority,
        tenant=arena.rng.choice("abc"),
        max_attempts=6,
    )
    while True:
        try:
            return (await store.enqueue([job]))[0].job.id
        except Unavailable:
            await asyncio.sleep(0.1)


async def kill_crewed(
    arena: Arena, redis: Redis, crew: Crew, killed: dict[int, float], outages: list[tuple[float, float]], ends: float
) -> None:
    while time.monotonic() < ends:
        await asyncio.sleep(EVERY_S)
        if arena.rng.random() < PROBABILITY:
            victim = arena.rng.choice(crew.members)
            victim.kill()  # whoever respawns reaps it
            killed[victim.pid] = time.time()
        elif arena.rng.random() < PROBABILITY / 4:
            away_from = time.time()
            redis.kill()
            await asyncio.to_thread(redis.start)
            outages.append((away_from, time.time()))


async def pace(ends: float, left: int) -> None:
    """So that the work comes all the time that the monkey is about."""
    await asyncio.sleep(max(0.0, ends - time.monotonic()) / max(1, left))
