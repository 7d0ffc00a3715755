"""The worker loop over every engine: outcomes, cancels, time limits, lost leases, stopping."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock.errors import InvalidInput, ParseError, Unavailable
from penstock.jobs.base import JobFilter, JobStore
from penstock.jobs.options import WorkerOptions
from penstock.jobs.worker import Handler, JobContext, Worker
from penstock.types import JSON, Job, JobState, NewJob, Priority, WorkerInfo


@asynccontextmanager
async def working(store: JobStore, handlers: Mapping[str, Handler], **options: Any) -> AsyncIterator[Worker]:
    worker = Worker(store, handlers, WorkerOptions(**({"grace_s": 5.0} | options)))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        yield worker
        worker.stop()


async def ended(store: JobStore, kind: str = "work", **fields: Any) -> Job:
    (accepted,) = await store.enqueue([NewJob(kind=kind, **fields)])
    return await store.wait(accepted.job.id, timeout_s=30)


async def registered(store: JobStore) -> WorkerInfo:
    """The one worker, as soon as it is in the registry."""
    while True:
        if workers := await store.workers():
            return workers[0]
        await asyncio.sleep(0.005)


async def echo(context: JobContext) -> JSON:
    return {"echo": context.job.payload, "attempt": context.attempt}


class Gate:
    """A handler that says when it has begun and goes on when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0

    async def __call__(self, context: JobContext) -> JSON:
        self.calls += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return context.attempt


async def test_a_job_is_run_and_its_result_kept(store: JobStore) -> None:
    async with working(store, {"work": echo}):
        job = await ended(store, payload={"x": [1]})
    assert (job.state, job.result) == (JobState.SUCCEEDED, {"echo": {"x": [1]}, "attempt": 1})


async def test_hundreds_run_at_once(store: JobStore) -> None:
    together = asyncio.Barrier(200)

    async def meet(context: JobContext) -> JSON:
        return await together.wait()

    jobs = await store.enqueue([NewJob(kind="work", priority=Priority.INTERACTIVE) for _ in range(200)])
    async with working(store, {"work": meet}):
        for accepted in jobs:
            assert (await store.wait(accepted.job.id, timeout_s=30)).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("error", "code", "attempts"),
    [
        (InvalidInput("bad", code="bad_page"), "bad_page", 1),
        (ParseError("unreadable"), "parse_failed", 1),
        (Unavailable("away"), "unavailable", 2),
        (ValueError("surprise"), "internal", 2),
    ],
)
async def test_errors_become_failures(make_store: Any, error: Exception, code: str, attempts: int) -> None:
    store = await make_store(backoff_base_s=0.001)

    async def fail(context: JobContext) -> JSON:
        raise error

    async with working(store, {"work": fail}):
        job = await ended(store, max_attempts=2)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == code
    assert str(error) in job.error.message
    assert len(job.failures) == attempts


async def test_the_time_limit_bounds_an_attempt(store: JobStore) -> None:
    async with working(store, {"work": Gate()}):
        job = await ended(store, time_limit_s=0.05, max_attempts=1)
    assert job.error is not None
    assert job.error.code == "time_limit"


@pytest.mark.case(10)
async def test_a_cancel_reaches_the_handler_and_is_final(store: JobStore) -> None:
    gate = Gate()
    async with working(store, {"work": gate}):
        (accepted,) = await store.enqueue([NewJob(kind="work")])
        await gate.begun.wait()
        await store.cancel(accepted.job.id)
        await gate.cancelled.wait()
        job = await store.wait(accepted.job.id, timeout_s=30)
    assert (job.state, gate.calls) == (JobState.CANCELLED, 1)


async def test_a_handler_that_ignores_the_cancel_does_not_overwrite_it(store: JobStore) -> None:
    gate = Gate()

    async def stubborn(context: JobContext) -> JSON:
        try:
            return await gate(context)
        except asyncio.CancelledError:
            return "done after all"

    async with working(store, {"work": stubborn}):
        (accepted,) = await store.enqueue([NewJob(kind="work")])
        await gate.begun.wait()
        await store.cancel(accepted.job.id)
        job = await store.wait(accepted.job.id, timeout_s=30)
    assert (job.state, job.result) == (JobState.CANCELLED, None)


async def test_events_and_progress_arrive_in_order_before_the_end(store: JobStore) -> None:
    async def talk(context: JobContext) -> JSON:
        await context.progress("read", 1, 2)
        for n in range(20):
            await context.emit("delta", {"text": str(n)})
            await asyncio.sleep(0.002)
        for done in range(1000):
            await context.progress("embed", done, 1000)
        return None

    async with working(store, {"work": talk}):
        (accepted,) = await store.enqueue([NewJob(kind="work")])
        events = [event async for event in store.watch(accepted.job.id)]
        job = await store.get(accepted.job.id)
    assert [event.data["text"] for event in events if event.type == "delta"] == [str(n) for n in range(20)]
    assert events[-1].data == {"state": "succeeded"}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert 1 <= sum(event.type == "progress" for event in events) <= 5
    assert job.progress is not None
    assert (job.progress.stage, job.progress.done) == ("embed", 999)


async def test_of_a_short_background_job_only_the_last_stage_is_told(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.jobs.reporter._PROGRESS_S", 60.0)  # short is what the slowest machine does in time

    async def work(context: JobContext) -> JSON:
        for stage in ("parse", "embed", "index"):
            await context.progress(stage, 0, 1)
            await asyncio.sleep(0)
        return None

    async with working(store, {"work": work}):
        (accepted,) = await store.enqueue([NewJob(kind="work", priority=Priority.NORMAL)])
        events = [event async for event in store.watch(accepted.job.id)]
        job = await store.get(accepted.job.id)
    assert sum(event.type == "progress" for event in events) == 1
    assert job.progress is not None
    assert job.progress.stage == "index"


async def test_what_is_said_goes_together_in_order(store: JobStore) -> None:
    async def talk(context: JobContext) -> JSON:
        for n in range(2000):
            await context.say(f"{n} ")
        await context.emit("note", {"text": "between"})
        for text in ("水" * 5_000, "门" * 5_000, "\x00" * 5_000, "end"):
            await context.say(text)
        return None

    async with working(store, {"work": talk}):
        job = await ended(store)
        assert job.state is JobState.SUCCEEDED
    events = [event for event in await store.events(job.id, limit=5000) if event.type != "state"]
    (note,) = [place for place, event in enumerate(events) if event.type == "note"]
    said = ["".join(event.data["text"] for event in part) for part in (events[:note], events[note + 1 :])]
    assert said[0] == "".join(f"{n} " for n in range(2000))
    assert said[1] == "水" * 5_000 + "门" * 5_000 + "\x00" * 5_000 + "end"
    assert len(events) < 200


async def test_a_flood_of_events_is_written_whole(store: JobStore) -> None:
    async def flood(context: JobContext) -> JSON:
        for n in range(3000):
            await context.emit("delta", {"n": n})
        return None

    async with working(store, {"work": flood}):
        job = await ended(store)
        assert job.state is JobState.SUCCEEDED
    events = await store.events(job.id, limit=5000)
    assert [event.data["n"] for event in events if event.type == "delta"] == list(range(3000))


async def test_an_event_that_cannot_be_stored_is_the_handlers_own_failure(store: JobStore) -> None:
    async def shout(context: JobContext) -> JSON:
        await context.emit("delta", {"text": "x" * 100_000})

    async def roar(context: JobContext) -> JSON:
        await context.say("x" * 100_000)

    async with working(store, {"work": shout, "loud": roar, "other": echo}):
        for kind in ("work", "loud"):
            job = await ended(store, kind=kind)
            assert job.error is not None
            assert job.error.code == "too_large"
        assert (await ended(store, kind="other")).state is JobState.SUCCEEDED


async def test_questions_never_wait_behind_documents(store: JobStore) -> None:
    gate = Gate()
    documents = await store.enqueue([NewJob(kind="document", priority=Priority.BULK) for _ in range(10)])
    async with working(store, {"document": gate, "question": echo}, concurrency=4, background=3):
        await gate.begun.wait()
        question = await ended(store, kind="question", priority=Priority.INTERACTIVE)
        assert question.state is JobState.SUCCEEDED
        assert gate.calls == 3
        gate.go.set()
        for document in documents:
            assert (await store.wait(document.job.id, timeout_s=30)).state is JobState.SUCCEEDED


async def test_a_blocked_event_loop_keeps_its_leases(make_store: Any) -> None:
    store = await make_store(lease_s=1.0)

    async def block(context: JobContext) -> JSON:
        time.sleep(2.0)  # noqa: ASYNC251 (the fault under test)
        return context.attempt

    async with working(store, {"work": block}, sweep_s=0.05):
        job = await ended(store)
    assert (job.state, job.result, list(job.failures)) == (JobState.SUCCEEDED, 1, [])


@pytest.mark.case(5)
async def test_a_lost_lease_cancels_the_zombie_and_the_new_attempts_result_counts(make_store: Any) -> None:
    store = await make_store(lease_s=0.3)
    gate = Gate()
    async with working(store, {"work": gate}, sweep_s=60):
        (accepted,) = await store.enqueue([NewJob(kind="work")])
        await gate.begun.wait()
        async with asyncio.TaskGroup() as group:
            # As if the first worker had been stopped past its lease: it goes back to the queue behind its back.
            await store.hand_back((await store.get(accepted.job.id)).worker or "", died=True)
            await gate.cancelled.wait()
            gate.go.set()
            job = await group.create_task(store.wait(accepted.job.id, timeout_s=30))
    assert (job.state, job.result) == (JobState.SUCCEEDED, 2)
    assert [failure.code for failure in job.failures] == ["worker_died"]


@pytest.mark.case(8)
async def test_stopping_lets_jobs_finish_and_leases_no_more(store: JobStore) -> None:
    gate = Gate()
    async with working(store, {"work": gate}) as worker:
        first = (await store.enqueue([NewJob(kind="work")]))[0].job
        await gate.begun.wait()
        worker.stop()
        second = (await store.enqueue([NewJob(kind="work")]))[0].job
        gate.go.set()
    assert (await store.get(first.id)).state is JobState.SUCCEEDED
    assert (await store.get(second.id)).state is JobState.QUEUED
    assert await store.workers() == []


@pytest.mark.case(8)
async def test_what_does_not_finish_in_the_grace_is_handed_back_uncounted(store: JobStore) -> None:
    gate = Gate()
    async with working(store, {"work": gate}, grace_s=0.05):
        job = (await store.enqueue([NewJob(kind="work", max_attempts=1)]))[0].job
        await gate.begun.wait()
    assert gate.cancelled.is_set()
    assert (await store.get(job.id)).state is JobState.QUEUED
    async with working(store, {"work": echo}):
        assert (await store.wait(job.id, timeout_s=30)).state is JobState.SUCCEEDED


async def test_a_worker_warms_before_it_leases_and_says_so(store: JobStore) -> None:
    warm = asyncio.Event()

    async def load() -> list[str]:
        await warm.wait()
        return ["model"]

    worker = Worker(store, {"work": echo}, warm=load)
    (accepted,) = await store.enqueue([NewJob(kind="work")])
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        assert not (await registered(store)).ready
        assert (await store.get(accepted.job.id)).state is JobState.QUEUED
        warm.set()
        await store.wait(accepted.job.id, timeout_s=30)
        (info,) = await store.workers()
        assert (info.ready, list(info.models)) == (True, ["model"])
        assert info.rss_bytes > 0
        worker.stop()


async def test_a_worker_that_cannot_warm_leases_nothing_and_raises(store: JobStore) -> None:
    async def load() -> list[str]:
        raise Unavailable("no model")

    await store.enqueue([NewJob(kind="work")])
    with pytest.raises(Unavailable, match="no model"):
        await Worker(store, {"work": echo}, warm=load).run()
    assert await store.count(JobFilter(states=frozenset({JobState.QUEUED}))) == 1
    assert await store.workers() == []


async def test_a_worker_stopped_while_it_warms_stops(store: JobStore) -> None:
    async def load() -> list[str]:
        await asyncio.Event().wait()
        return []

    async with working(store, {"work": echo}) as idle:
        idle.stop()
    worker = Worker(store, {"work": echo}, warm=load)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await registered(store)
        worker.stop()


async def test_a_worker_whose_task_is_cancelled_ends(store: JobStore) -> None:
    gate = Gate()
    running = asyncio.ensure_future(Worker(store, {"work": gate}).run())
    await store.enqueue([NewJob(kind="work")])
    await gate.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
