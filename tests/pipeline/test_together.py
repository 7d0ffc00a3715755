"""Look-ups made together: each caller gets its own answer, whoever of the others leaves or fails."""

import asyncio
import random
from collections.abc import Collection, Mapping

import pytest

from penstock.pipeline.together import Together


class Shelf:
    """Counts what is looked up; `gate` holds look-ups back."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()

    async def look_up(self, keys: Collection[int]) -> Mapping[int, int]:
        self.asked.append(list(keys))
        await self.gate.wait()
        if 13 in keys:
            raise ValueError("thirteen")
        return {key: key * key for key in keys}


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


async def start(together: Together[int, int], *asks: list[int]) -> list["asyncio.Task[Mapping[int, int]]"]:
    tasks = [asyncio.create_task(together.get(keys)) for keys in asks]
    await asyncio.sleep(0)
    return tasks


async def test_those_that_come_meanwhile_go_together(shelf: Shelf) -> None:
    together = Together(shelf.look_up, most=4)
    tasks = await start(together, [1], [2, 3], [3, 4], [4, 5], [6])
    assert shelf.asked == [[1]]
    shelf.gate.set()
    found = await asyncio.gather(*tasks)
    assert shelf.asked == [[1], [2, 3, 4, 5], [6]]
    assert [found[0][1], found[1][2], found[2][4], found[3][5], found[4][6]] == [1, 4, 16, 25, 36]


async def test_more_than_the_most_of_one_caller_is_looked_up_at_once(shelf: Shelf) -> None:
    shelf.gate.set()
    together = Together(shelf.look_up, most=2)
    assert await together.get([1, 2, 3]) == {1: 1, 2: 4, 3: 9}
    assert shelf.asked == [[1, 2, 3]]


async def test_an_error_is_everybodys_who_went_along_and_nobody_elses(shelf: Shelf) -> None:
    together = Together(shelf.look_up, most=2)
    tasks = await start(together, [1], [12, 13], [14])
    shelf.gate.set()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(second, ValueError)
    assert (first, third) == ({1: 1}, {14: 196})


async def test_another_takes_over_when_the_one_that_looks_up_leaves(shelf: Shelf) -> None:
    together = Together(shelf.look_up, most=10)
    first, second, third = await start(together, [1], [2], [3])
    first.cancel()
    await asyncio.sleep(0)
    second.cancel()
    shelf.gate.set()
    async with asyncio.timeout(5):
        assert (await third)[3] == 9
    assert first.cancelled()


async def test_random_leavers_hold_up_nobody() -> None:
    chance = random.Random(3)

    async def look_up(keys: Collection[int]) -> Mapping[int, int]:
        await asyncio.sleep(chance.uniform(0, 0.002))
        return {key: -key for key in keys}

    together = Together(look_up, most=20)

    async def impatient(number: int) -> None:
        await asyncio.sleep(chance.uniform(0, 0.05))
        try:
            async with asyncio.timeout(chance.uniform(0, 0.01)):
                assert (await together.get([number]))[number] == -number
        except TimeoutError:
            pass

    async with asyncio.timeout(30):
        await asyncio.gather(*[impatient(number) for number in range(1, 500)])
        assert await together.get([7]) == {7: -7}
