"""How many chunks the documents in flight may hold together."""

import asyncio

from penstock.pipeline.ingest import Room


async def hold(room: Room, share: int, log: list[int], leave: asyncio.Event) -> None:
    async with room.taken(share):
        log.append(share)
        await leave.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_small_shares_fit_beside_each_other_and_a_large_one_gets_its_turn() -> None:
    room, log, leave = Room(10), list[int](), [asyncio.Event() for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        for share, event in zip((4, 5, 50, 1), leave, strict=True):
            group.create_task(hold(room, share, log, event))
        await settle()
        assert log == [4, 5]  # 50 counts as 10, and 1 does not pass it over though it would fit
        leave[0].set()
        await settle()
        assert log == [4, 5]
        leave[1].set()
        await settle()
        assert log == [4, 5, 50]
        leave[2].set()
        await settle()
        assert log == [4, 5, 50, 1]
        leave[3].set()


async def test_who_is_cancelled_leaves_no_share_behind() -> None:
    room, log, stay, go = Room(2), list[int](), asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold(room, 2, log, stay))
    await settle()
    waiting = asyncio.create_task(hold(room, 1, log, stay))
    await settle()
    for task in (waiting, holding):
        task.cancel()
    await asyncio.gather(waiting, holding, return_exceptions=True)
    go.set()
    await asyncio.wait_for(hold(room, 2, log, go), 5)
    assert log == [2, 2]
