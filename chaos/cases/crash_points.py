"""Case 1: the worker of `penstock serve` is killed (-9) at every point of a document's way."""

from chaos.arena import Arena, Engine
from chaos.desk import Desk, Texts, note
from chaos.processes import Serve
from chaos.tally import SERVE_LIMIT_S, Tally

POINTS = (
    "leased",
    "read",
    "parsed",
    "chunked",
    "embed",
    "embed:3",
    "before-upsert",
    "mid-upsert",
    "after-upsert",
    "before-finish",
    "mid-finish",
    "before-ack",
    "mid-ack",
    "after-ack",
)
COLOURS = (
    "red",
    "blue",
    "green",
    "black",
    "white",
    "brown",
    "gold",
    "grey",
    "pink",
    "silver",
    "orange",
    "purple",
    "dark",
)
SPEEDS = ("fast", "slow", "quick")
WITHIN_S = 90.0


def documents(number: int) -> Texts:
    """Small ones, and a book of several windows of chunks: each time other texts, so that no cache knows them."""
    said = f"must be {COLOURS[number % len(COLOURS)]} and {SPEEDS[number // len(COLOURS)]}"
    book = {"name": "book.md", "text": note(0, sentences=400, said=said)["text"]}
    return [note(i, said=said) for i in range(1, 6)] + [book]


async def run(arena: Arena) -> list[Tally]:
    return [await on(arena, engine, place) for place, engine in enumerate(arena.engines)]


async def on(arena: Arena, engine: Engine, place: int) -> Tally:
    tally = Tally(case="1", what=f"worker killed at each of {len(POINTS)} points ({engine})", limit_s=SERVE_LIMIT_S)
    house = await arena.house(engine)
    points = POINTS[place :: len(arena.engines)] if arena.quick else POINTS
    for number, point in enumerate(points, start=1):
        desk = await Desk.open(house)
        before = len(house.control.deaths())
        house.control.arm(point)
        jobs = await desk.upload(documents(number))
        await desk.settled(WITHIN_S)
        if house.control.disarm():
            tally.problems.append(f"nobody came to the point {point}")
        deaths = house.control.deaths()
        tally.require(len(deaths) == before + 1, f"{len(deaths) - before} deaths at {point}, not one")
        slowest = tally.slowest_s
        await desk.judge(tally, await uncrashed(house, number), list(jobs.values()), deaths, WITHIN_S)
        if tally.slowest_s > max(slowest, SERVE_LIMIT_S):
            tally.notes.append(f"{point}: {tally.slowest_s:.2f} s")
    return tally


async def uncrashed(house: Serve, number: int) -> dict[str, int | None]:
    """How many chunks the same documents have when nothing happens."""
    desk = await Desk.open(house)
    await desk.upload(documents(number))
    return {one["name"]: one["chunks"] for one in await desk.settled(WITHIN_S)}
