"""What is pushed to watchers, and how long they wait for it."""

import asyncio

from penstock.jobs.wakeups import Inbox, Wakeups
from penstock.types import JobEvent


def event(seq: int) -> JobEvent:
    return JobEvent(seq=seq, type="delta", data={}, attempt=1, at=0.0)


async def test_what_was_pushed_before_is_there_at_once() -> None:
    box = Inbox()
    box.push(event(1))
    box.push(event(2))
    assert [one.seq for one in await box.take(60) or ()] == [1, 2]


async def test_a_shorter_wait_after_a_longer_one_ends_in_its_own_time() -> None:
    wakeups = Wakeups()
    with wakeups.inbox("job") as box:
        waiting = asyncio.create_task(box.take(3600))
        await asyncio.sleep(0)
        wakeups.event("job", event(1))
        assert await waiting is not None
        async with asyncio.timeout(30):
            assert await box.take(0.01) is None
        for _ in range(3):
            assert await box.take(0.001) is None
    assert not wakeups.inboxes


async def test_a_slow_watcher_is_sent_to_the_store() -> None:
    box = Inbox()
    for seq in range(1000):
        box.push(event(seq))
    assert await box.take(60) is None
    box.push(event(1000))
    assert await box.take(60) is not None
