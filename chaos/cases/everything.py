"""Case 3: everything is killed with thousands of documents in flight; after a restart all of them finish, paid once."""

import asyncio

from chaos.arena import Arena, Engine
from chaos.desk import Desk, note
from chaos.processes import Serve
from chaos.tally import Tally

BATCH = 200
IN_FLIGHT_CHUNKS = 2048
"""What the pipeline holds between parse and index at most; that much may be paid for a second time."""
WITHIN_S = 900.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine) for engine in arena.engines]


async def on(arena: Arena, engine: Engine) -> Tally:
    count = arena.few(400, 4000)
    tally = Tally(case="3", what=f"everything killed with {count:,} documents in flight ({engine})")
    async with arena.own_house(engine) as house:
        await house.start()
        desk = await Desk.open(house)
        jobs: dict[str, str] = {}
        for first in range(0, count, BATCH):
            jobs |= await desk.upload([note(i, sentences=4) for i in range(first, min(count, first + BATCH))])
        while done(await desk.documents()) < count * arena.rng.uniform(0.1, 0.5):
            await asyncio.sleep(0.1)
        died_at = await die(tally, house, desk)
        await desk.judge(tally, dict.fromkeys(jobs), list(jobs.values()), [died_at], WITHIN_S)
        paid = house.control.embeds()
        chunks = sum(one["chunks"] for one in await desk.documents())
        tally.notes.append(f"{paid:,} passages were embedded for {chunks:,} chunks")
        tally.require(paid - chunks <= IN_FLIGHT_CHUNKS, "embedded chunks were paid again")
    return tally


async def die(tally: Tally, house: Serve, desk: Desk) -> float:
    """Returns when."""
    died_at = house.kill_everything()
    started_s = await house.start()
    finished = done(await desk.documents())
    tally.notes.append(f"ready {started_s:.1f} s after the start; {finished:,} documents were done already")
    return died_at


def done(documents: list[dict[str, object]]) -> int:
    return sum(one["status"] == "done" for one in documents)
