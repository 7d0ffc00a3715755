"""Case 11: documents deleted or uploaded anew while they are ingested: the last write wins, nothing is left over."""

import asyncio

from chaos.arena import Arena, Engine
from chaos.desk import Desk, note
from chaos.tally import Tally

WITHIN_S = 90.0


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine) for engine in arena.engines]


async def on(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="11", what=f"deleted or uploaded anew during ingest, worker killed ({engine})")
    house = await arena.house(engine)
    desk = await Desk.open(house)
    count = arena.few(40, 120)
    await desk.upload([note(i, sentences=40, said="was broken") for i in range(count)])
    fates = {i: arena.rng.choice(["keep", "replace", "delete"]) for i in range(count)}
    by_name = {one["name"]: one["id"] for one in await desk.documents()}
    final: dict[int, str] = {}
    deaths: list[float] = []

    async def act(number: int) -> None:
        await asyncio.sleep(arena.rng.uniform(0, 3.0))
        match fates[number]:
            case "replace":
                await desk.upload([note(number, sentences=20, said="was mended")])
                final[number] = "was mended"
            case "delete":
                document = by_name[note(number)["name"]]
                await desk.send("DELETE", f"/v1/documents/{document}", accept={200, 404})
            case _:
                final[number] = "was broken"

    async def kill() -> None:
        await asyncio.sleep(arena.rng.uniform(0.5, 2.5))
        deaths.extend(house.kill("worker"))

    await asyncio.gather(kill(), *(act(number) for number in range(count)))
    await desk.judge(tally, {note(number)["name"]: None for number in final}, [], deaths, WITHIN_S)
    for one in await desk.documents():
        number = int(one["name"].removeprefix("note-").removesuffix(".md"))
        if number not in final:
            tally.doubled += 1
            tally.notes.append(f"document {one['name']} was deleted and is there")
            continue
        reply = await desk.send("GET", f"/v1/documents/{one['id']}/chunks", params={"limit": 1000}, accept={200})
        texts = [chunk["text"] for chunk in reply.json()["chunks"]]
        old = sum("was " in text and final[number] not in text for text in texts)
        if old or not texts:
            tally.doubled += old
            tally.lost += not texts
            tally.notes.append(f"document {one['name']}: {old} of {len(texts)} chunks are of another version")
    return tally
