"""What is Redis's own: restarts, cancelled calls, what the server is set up for, who may come in."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

from penstock.errors import ConfigError, StorageFull, Unavailable
from penstock.ids import new_id
from penstock.jobs import open_store
from penstock.jobs.base import JobFilter, JobStore, Outcome
from penstock.jobs.redis.scripts import load_scripts
from penstock.jobs.worker import JobContext, Worker
from penstock.types import JSON, JobState, NewJob


async def echo(context: JobContext) -> JSON:
    return context.job.payload


def names(server: Any) -> list[str]:
    """All keys of the server."""
    return [str(key) for key in redis.Redis(port=server.port, decode_responses=True).scan_iter()]


async def large_jobs(store: JobStore) -> AsyncIterator[None]:
    """Enqueue without end."""
    while True:
        await store.enqueue([NewJob(kind="large", payload={"x": "y" * 100_000})])
        yield


async def until_up(store: JobStore) -> None:
    while True:
        try:
            await store.ping()
        except Unavailable:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.mark.case(14)
async def test_after_redis_was_killed_and_started_everything_goes_on_by_itself(own_redis: Any) -> None:
    own_redis.settings = ("--appendfsync", "always")
    own_redis.start()
    async with open_store(own_redis.url) as store, asyncio.TaskGroup() as group:
        worker = Worker(store, {"work": echo})
        group.create_task(worker.run())
        (first,) = await store.enqueue([NewJob(kind="work", payload={"n": 1})])
        assert (await store.wait(first.job.id, timeout_s=30)).state is JobState.SUCCEEDED
        (kept,) = await store.enqueue([NewJob(kind="other", payload={"n": 2})])
        await asyncio.to_thread(own_redis.kill)
        with pytest.raises(Unavailable):
            await store.enqueue([NewJob(kind="work")])
        with pytest.raises(Unavailable):
            await asyncio.to_thread(store.beat, worker.id, {first.job.id: 1})
        await asyncio.to_thread(own_redis.start)
        await until_up(store)
        assert (await store.get(kept.job.id)).payload == {"n": 2}
        (second,) = await store.enqueue([NewJob(kind="work", payload={"n": 3})])
        assert (await store.wait(second.job.id, timeout_s=30)).result == {"n": 3}
        worker.stop()


@pytest.mark.case(15)
async def test_after_a_flush_nothing_is_left_and_nothing_hangs(own_redis: Any) -> None:
    own_redis.start()
    begun = asyncio.Event()

    async def hang(context: JobContext) -> JSON:
        begun.set()
        await asyncio.Event().wait()

    async with open_store(own_redis.url) as store, asyncio.TaskGroup() as group:
        worker = Worker(store, {"hang": hang, "work": echo})
        running = group.create_task(worker.run())
        await store.enqueue([NewJob(kind="hang")])
        await begun.wait()
        redis.Redis(port=own_redis.port).flushall()
        assert await store.count(JobFilter()) == 0
        (job,) = await store.enqueue([NewJob(kind="work")])
        assert (await store.wait(job.job.id, timeout_s=30)).state is JobState.SUCCEEDED
        worker.stop()
        await running  # the lost job is noticed by the heartbeat; nobody waits for the grace to pass


@pytest.mark.case(14)
async def test_a_server_that_may_lose_jobs_is_warned_of(own_redis: Any) -> None:
    own_redis.settings = ("--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    own_redis.start()
    async with open_store(own_redis.url) as store:
        assert not store.durable
        assert [word for warning in store.warnings() for word in ("appendonly", "maxmemory-policy") if word in warning]
        assert len(store.warnings()) == 2


async def test_a_well_set_up_server_is_durable_without_warnings(own_redis: Any) -> None:
    own_redis.start()
    async with open_store(own_redis.url) as store:
        assert store.durable
        assert not store.warnings()


async def test_a_full_redis_is_said_to_be_full(own_redis: Any) -> None:
    own_redis.settings = ("--maxmemory", "4mb")
    own_redis.start()
    async with open_store(own_redis.url) as store:
        (job,) = await store.enqueue([NewJob(kind="work")])
        await store.lease("w", kinds={"work"}, n=1)
        accepted = 1
        with pytest.raises(StorageFull):  # noqa: PT012 (at which call it is full is up to Redis)
            async for _ in large_jobs(store):
                accepted += 1
        assert await store.count(JobFilter()) == accepted
        assert not await store.finish([(job.job.id, 1, Outcome())])


async def test_the_password_lets_in_and_is_not_told(own_redis: Any) -> None:
    own_redis.settings = ("--requirepass", "open-sesame")
    own_redis.start()
    async with open_store(own_redis.url.replace("//", "//:open-sesame@")) as store:
        await store.ping()
    with pytest.raises(ConfigError) as refused:
        await open_store(own_redis.url.replace("//", "//:other-word@")).__aenter__()
    assert "other-word" not in str(refused.value)


async def test_where_there_is_no_server_it_is_unavailable(own_redis: Any) -> None:
    with pytest.raises(Unavailable, match=str(own_redis.port)):
        await open_store(own_redis.url).__aenter__()


def test_a_prefix_that_would_break_the_hash_tag_is_refused() -> None:
    with pytest.raises(ConfigError):
        open_store("redis://localhost?prefix=a}b")


@pytest.mark.case(27)
async def test_a_cancelled_calls_reply_never_reaches_another_caller(redis_server: Any) -> None:
    """Each call asks for a nonce of its own; most of them are cancelled at random moments."""
    rng = random.Random(27)
    async with open_store(f"{redis_server.url}?prefix={new_id('nonce')}") as store:
        jobs = [each.job for each in await store.enqueue([NewJob(kind="work", payload={"n": n}) for n in range(50)])]
        wrong = 0

        async def ask(n: int) -> None:
            nonlocal wrong
            wrong += (await store.get(jobs[n].id)).payload != {"n": n}

        for _ in range(60):
            asked = [asyncio.ensure_future(ask(n)) for n in range(50)]
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            for call in rng.sample(asked, 45):
                call.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        assert wrong == 0
        await asyncio.gather(*(ask(n) for n in range(50)))
        assert wrong == 0


async def test_lost_scripts_are_loaded_again(own_redis: Any) -> None:
    own_redis.start()
    async with open_store(own_redis.url) as store:
        (job,) = await store.enqueue([NewJob(kind="work")])
        redis.Redis(port=own_redis.port).script_flush()
        assert len(await store.lease("w", kinds={"work"}, n=1)) == 1
        redis.Redis(port=own_redis.port).script_flush()
        assert not (await asyncio.to_thread(store.beat, "w", {job.job.id: 1})).lost
        assert not await store.finish([(job.job.id, 1, Outcome())])


async def test_all_keys_bear_the_hash_tag(own_redis: Any) -> None:
    own_redis.start()
    async with open_store(f"{own_redis.url}?prefix=mine") as store:
        jobs = await store.enqueue(
            [NewJob(kind="work", idempotency_key="k", subject="s"), NewJob(kind="work", run_at=4e9)]
        )
        await store.lease("w", kinds={"work"}, n=1)
        await store.finish([(jobs[0].job.id, 1, Outcome())])
        keys = names(own_redis)
    assert keys
    assert all(key.startswith("{mine}:") for key in keys)


async def test_forgotten_jobs_leave_nothing_behind(own_redis: Any) -> None:
    own_redis.start()
    async with open_store(own_redis.url) as store:
        new = [NewJob(kind="work", idempotency_key=f"k{n}", subject="s", result_ttl_s=0.001) for n in range(20)]
        await store.enqueue(new)
        jobs = await store.lease("w", kinds={"work"}, n=10)
        await store.finish([(job.id, 1, Outcome()) for job in jobs])
        await store.cancel_all(JobFilter())
        while await store.count(JobFilter()):
            await store.expire()
        left = {name.removeprefix("{penstock}:") for name in names(own_redis)}
    assert {name for name in left if not name.startswith(("h:", "rank:", "jobs:", "bytes:"))} <= {"n"}


def test_the_scripts_never_decode_json_and_nothing_is_pickled() -> None:
    scripts = load_scripts()
    assert {"enqueue", "lease", "finish"} <= set(scripts)
    assert not [script.name for script in scripts.values() if "cjson" in script.text]
    package = Path(__file__).parents[2] / "src" / "penstock" / "jobs"
    for file in package.rglob("*.py"):
        words = file.read_text(encoding="utf-8").split()
        assert "pickle" not in words, file
