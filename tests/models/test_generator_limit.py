"""The limit that falls under 429 and recovers, and the breaker that leaves a failing provider alone."""

import asyncio
import random
import time

import pytest

from penstock.models.openai_breaker import Breaker
from penstock.models.openai_errors import refusal, retry_after, without_secret
from penstock.models.openai_limit import AdaptiveLimit


@pytest.mark.case(21)
async def test_one_round_of_refusals_halves_once_and_success_recovers() -> None:
    limit = AdaptiveLimit(16)
    turns = [await limit.acquire() for _ in range(16)]
    for turn in turns:
        limit.refused(turn, None)
        limit.release()
    assert limit.limit == 8
    limit.refused(await limit.acquire(), None)
    limit.release()
    assert limit.limit == 4
    for _ in range(4 + 5 + 6 + 7):
        limit.served()
    assert limit.limit in {7, 8}
    for _ in range(200):
        limit.served()
    assert limit.limit == 16


async def test_grows_as_far_as_the_provider_lets_calls_in() -> None:
    limit = AdaptiveLimit(64, start=2)
    calls = [asyncio.create_task(limit.acquire()) for _ in range(100)]
    for begun in (2, 4, 8, 16, 32, 64, 64):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert limit.in_flight == begun
        for _ in range(begun):
            limit.let_in()
    limit.refused(0, None)
    limit.let_in()
    assert limit.limit == 32
    for call in calls:
        call.cancel()


async def test_grows_also_when_calls_come_one_after_the_other() -> None:
    limit = AdaptiveLimit(64, start=2)
    async with asyncio.timeout(5):
        for begun in range(1, 65):
            await limit.acquire()
            limit.let_in()
            assert limit.limit == min(64, begun + 2)
    for _ in range(64):
        limit.release()
    limit.let_in()
    assert limit.limit == 64


@pytest.mark.case(21)
async def test_never_below_one() -> None:
    limit = AdaptiveLimit(2)
    for _ in range(10):
        limit.refused(await limit.acquire(), None)
        limit.release()
    assert limit.limit == 1


@pytest.mark.case(21)
async def test_retry_after_holds_everybody() -> None:
    limit = AdaptiveLimit(8)
    limit.refused(await limit.acquire(), 0.05)
    limit.release()
    started = time.monotonic()
    await limit.acquire()
    assert time.monotonic() - started >= 0.04


async def test_random_cancellations_lose_no_turn() -> None:
    limit = AdaptiveLimit(3)
    chance = random.Random(5)
    most = 0

    async def work() -> None:
        nonlocal most
        await limit.acquire()
        try:
            most = max(most, limit.in_flight)
            await asyncio.sleep(chance.uniform(0, 0.002))
        finally:
            limit.release()

    async def impatient() -> None:
        try:
            async with asyncio.timeout(chance.uniform(0, 0.02)):
                await work()
        except TimeoutError:
            pass

    await asyncio.gather(*[impatient() for _ in range(500)])
    assert (most, limit.in_flight) == (3, 0)
    async with asyncio.timeout(20):
        await asyncio.gather(*[work() for _ in range(5)])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.case(22)
def test_breaker_opens_tries_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(failures=2, cooldown_s=10, clock=clock)
    for _ in range(2):
        assert breaker.admit()
        breaker.failed()
    assert not breaker.admit()
    breaker.failed()  # one that went before it opened
    clock.now = 9.9
    assert not breaker.admit()
    clock.now = 10
    assert breaker.admit()
    assert not breaker.admit()  # one tries, the others wait for what it learns
    breaker.failed()
    clock.now = 29.9
    assert not breaker.admit()
    clock.now = 30
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()
    breaker.began()
    assert breaker.admit()
    breaker.succeeded()
    breaker.failed()
    assert not breaker.open


@pytest.mark.case(22)
def test_failures_among_calls_that_get_words_do_not_open_the_breaker() -> None:
    breaker = Breaker(failures=2, cooldown_s=10)
    for _ in range(5):
        breaker.failed()
        breaker.began()
    assert breaker.admit()
    breaker.failed()
    breaker.failed()
    breaker.began()  # one that went before it opened
    assert not breaker.admit()


@pytest.mark.case(21)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=60.0) == seconds


@pytest.mark.case(22)
def test_the_key_is_taken_out_of_what_a_provider_says() -> None:
    body = b'{"error": {"message": "model x\\n of sk-1 not found"}}'
    assert '"model x of [key] not found"' in refusal("P", 404, {}, body, "sk-1").message
    assert "sk-1" not in refusal("P", 401, {}, body, "").message
    assert without_secret("of sk-1", "sk-1") == "of [key]"
    assert refusal("P", 500, {}, b"<html>", "sk-1").message == "P answered with status 500."
