"""One model of the state machine, random walks through it on every engine, under a clock that the walk turns.

`PENSTOCK_EXAMPLES` sets how many walks an engine gets (of 50 steps each when it is set).
"""

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from penstock.errors import Conflict, LeaseLost, NotFound
from penstock.ids import new_id
from penstock.jobs import JobsOptions, JobStore
from penstock.jobs.base import JobFilter, NewEvent, Outcome
from penstock.jobs.clock import Clock
from penstock.jobs.redis.store import RedisStore
from penstock.jobs.sqlite.store import SqliteStore
from penstock.types import Failure, JobState, NewJob, Priority

OPTIONS = JobsOptions(lease_s=6.0, aged_after_s=1e9, backoff_base_s=2.0, backoff_cap_s=16.0, max_events=10_000)
TTL_S = 120.0
WORKERS = ["w1", "w2", "w3"]
KINDS = ["a", "b"]
QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = JobState


class Half(random.Random):
    """Jitter in the middle, so that the model knows the pause."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@dataclass
class Model:
    """What a job should be."""

    id: str
    kind: str
    priority: Priority
    tenant: str
    max_attempts: int
    due: float
    deadline: float | None
    state: JobState = QUEUED
    attempt: int = 0
    excused: int = 0
    alone: bool = False
    cancel: bool = False
    worker: str | None = None
    lease_until: float = 0.0
    result: Any = None
    error: str | None = None
    failures: list[str] = field(default_factory=list)
    events: int = 0
    forgotten_at: float = 0.0

    @property
    def left(self) -> int:
        return self.max_attempts - (self.attempt - self.excused)

    def end(self, state: JobState, now: float) -> None:
        self.state, self.worker, self.alone, self.forgotten_at = state, None, False, now + TTL_S
        self.events += 1

    def fail(self, code: str, now: float) -> None:
        self.error = code
        self.end(FAILED, now)

    def requeue(self, due: float) -> None:
        self.state, self.worker, self.due, self.error, self.cancel, self.alone = QUEUED, None, due, None, False, False
        self.events += 1

    def lose(self, now: float) -> None:
        if self.cancel:
            return self.end(CANCELLED, now)
        self.failures.append("worker_died")
        if self.left > 0:
            last = self.left == 1
            self.requeue(now)
            self.alone = last
        else:
            self.fail("worker_died", now)
        return None


class Walk(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model; the invariant compares them."""

    make: ClassVar[Callable[["Walk"], JobStore]]
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.clock = Clock(wall=lambda: self.now, steady=lambda: self.now)
        self.folder = tempfile.mkdtemp(prefix="penstock-walk-")
        self.prefix = new_id("walk")
        self.loop = asyncio.new_event_loop()
        self.jobs: dict[str, Model] = {}
        self.store = self.make()
        self.run(self.store.__aenter__())

    def run(self, call: Any) -> Any:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.store.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def running(self, worker: str) -> dict[str, int]:
        return {job.id: job.attempt for job in self.jobs.values() if job.state is RUNNING and job.worker == worker}

    @rule(
        target=ids,
        kind=st.sampled_from(KINDS),
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from(["t1", "t2"]),
        max_attempts=st.integers(1, 3),
        delay=st.sampled_from([None, None, 3.0, 20.0]),
        patience=st.sampled_from([None, None, 10.0]),
    )
    def enqueue(self, kind: str, priority: Priority, tenant: str, max_attempts: int, delay: Any, patience: Any) -> str:
        job_id = new_id("job")
        run_at = None if delay is None else self.now + delay
        deadline = None if patience is None else self.now + patience
        new = NewJob(
            id=job_id, kind=kind, priority=priority, tenant=tenant, max_attempts=max_attempts, run_at=run_at,
            deadline=deadline, idempotency_key=f"key-{job_id}", result_ttl_s=TTL_S,
        )  # fmt: skip
        (accepted,) = self.run(self.store.enqueue([new]))
        assert accepted.created
        self.jobs[job_id] = Model(job_id, kind, priority, tenant, max_attempts, run_at or self.now, deadline)
        return job_id

    @rule(job_id=ids)
    def enqueue_again(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        new = NewJob(kind=job.kind, tenant=job.tenant, idempotency_key=f"key-{job_id}")
        (answer,) = self.run(self.store.enqueue([new]))
        assert (answer.created, answer.job.id) == (False, job_id)
        other = replace(new, payload={"other": 1})
        with pytest.raises(Conflict):
            self.run(self.store.enqueue([other]))

    @rule(
        worker=st.sampled_from(WORKERS),
        kinds=st.sampled_from([{"a"}, {"b"}, {"a", "b"}]),
        n=st.integers(1, 4),
        background=st.integers(0, 4),
    )
    def lease(self, worker: str, kinds: set[str], n: int, background: int) -> None:
        ready = [
            job for job in self.jobs.values()
            if job.state is QUEUED and job.kind in kinds and job.due <= self.now
            and (job.deadline is None or job.deadline > self.now)
        ]  # fmt: skip
        self.miss_deadlines()
        leased = self.run(self.store.lease(worker, kinds=kinds, n=n, background=background))
        assert len(leased) == min(n, self.room(ready, worker, background))
        for found in leased:
            job = self.jobs[found.id]
            assert job in ready
            job.state, job.worker, job.attempt = RUNNING, worker, job.attempt + 1
            job.lease_until = self.now + OPTIONS.lease_s
            job.events += 1
            assert (found.attempt, found.worker) == (job.attempt, worker)
        assert sum(self.jobs[found.id].alone for found in leased) <= 1
        places = [list(Priority).index(found.priority) for found in leased]
        assert places == sorted(places)

    def room(self, ready: list[Model], worker: str, background: int) -> int:
        """How many of the ready jobs the worker may take; at most one that must run alone."""
        free = not any(job.state is RUNNING and job.alone and job.worker == worker for job in self.jobs.values())
        total = 0
        for priority in Priority:
            mine = [job.alone for job in ready if job.priority is priority]
            takes = mine.count(False)
            if free and any(mine) and (priority is Priority.INTERACTIVE or background > 0):
                takes, free = takes + 1, False
            if priority is not Priority.INTERACTIVE:
                takes = min(takes, background)
                background -= takes
            total += takes
        return total

    @rule(
        job_id=ids,
        stale=st.booleans(),
        outcome=st.sampled_from(
            [
                Outcome(result={"done": True}),
                Outcome(failure=Failure(code="broken", message="no")),
                Outcome(failure=Failure(code="away", message="later"), retry=True),
                Outcome(cancelled=True),
            ]
        ),
    )
    def finish(self, job_id: str, stale: bool, outcome: Outcome) -> None:
        job = self.jobs.get(job_id)
        attempt = (job.attempt if job else 1) - stale
        lost = self.run(self.store.finish([(job_id, attempt, outcome)]))
        if job is None or job.state is not RUNNING or stale:
            assert lost == {job_id}
            return
        assert not lost
        if outcome.failure is not None:
            job.failures.append(outcome.failure.code)
        if job.cancel or outcome.cancelled:
            job.end(CANCELLED, self.now)
        elif outcome.failure is None:
            job.result = outcome.result
            job.end(SUCCEEDED, self.now)
        elif outcome.retry and job.left > 0:
            bound = min(OPTIONS.backoff_cap_s, OPTIONS.backoff_base_s * 2 ** (job.attempt - 1))
            job.requeue(self.now + bound / 2)
        else:
            job.fail(outcome.failure.code, self.now)

    @rule(job_id=ids, stale=st.booleans(), count=st.integers(1, 3))
    def append(self, job_id: str, stale: bool, count: int) -> None:
        job = self.jobs.get(job_id)
        attempt = (job.attempt if job else 1) - stale
        call = self.store.append(job_id, attempt, [NewEvent(type="delta", data={"n": n}) for n in range(count)])
        if job is None or job.state is not RUNNING or stale:
            with pytest.raises(LeaseLost):
                self.run(call)
        else:
            self.run(call)
            job.events += count

    @rule(worker=st.sampled_from(WORKERS), strange=ids)
    def beat(self, worker: str, strange: str) -> None:
        held = self.running(worker)
        beat = self.store.beat(worker, {strange: 999} | held)
        assert beat.lost == {strange} - set(held)
        assert beat.cancelled == {job_id for job_id in held if self.jobs[job_id].cancel}
        for job_id in held:
            self.jobs[job_id].lease_until = self.now + OPTIONS.lease_s

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            with pytest.raises(NotFound):
                self.run(self.store.cancel(job_id))
            return
        self.run(self.store.cancel(job_id))
        if job.state is QUEUED:
            job.end(CANCELLED, self.now)
        elif job.state is RUNNING:
            job.cancel = True

    @rule(job_id=ids)
    def retry(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is not None and job.state in {FAILED, CANCELLED}:
            self.run(self.store.retry(job_id))
            job.excused, job.deadline = job.attempt, None
            job.requeue(self.now)
        else:
            with pytest.raises((Conflict, NotFound)):
                self.run(self.store.retry(job_id))

    @rule(worker=st.sampled_from(WORKERS), died=st.booleans())
    def hand_back(self, worker: str, died: bool) -> None:
        held = self.running(worker)
        assert self.run(self.store.hand_back(worker, died=died)) == len(held)
        for job in (self.jobs[job_id] for job_id in held):
            if died:
                job.lose(self.now)
            elif job.cancel:
                job.end(CANCELLED, self.now)
            else:
                job.excused += 1
                job.requeue(self.now)

    @rule(seconds=st.sampled_from([0.5, 2.0, 7.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.run(self.store.expire())
        for job in list(self.jobs.values()):
            if job.state is RUNNING and job.lease_until <= self.now:
                job.lose(self.now)
        self.miss_deadlines()
        for job in list(self.jobs.values()):
            if job.state.final and job.forgotten_at <= self.now:
                del self.jobs[job.id]

    def miss_deadlines(self) -> None:
        for job in self.jobs.values():
            if job.state is QUEUED and job.deadline is not None and job.deadline <= self.now:
                job.failures.append("deadline_exceeded")
                job.fail("deadline_exceeded", self.now)

    @rule()
    def restart(self) -> None:
        if self.store.durable:
            self.run(self.store.__aexit__(None, None, None))
            self.store = self.make()
            self.run(self.store.__aenter__())

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        page = self.run(self.store.list(JobFilter(), limit=1000))
        assert {job.id for job in page.jobs} == set(self.jobs)
        for found in page.jobs:
            job = self.jobs[found.id]
            told = (found.state, found.attempt, found.worker, found.cancel_requested, found.result)
            assert told == (job.state, job.attempt, job.worker, job.cancel, job.result)
            assert (found.error.code if found.error else None) == job.error
            assert [failure.code for failure in found.failures] == job.failures[-20:]
            assert found.deadline == job.deadline

    @invariant()
    def the_queues_add_up(self) -> None:
        for stats in self.run(self.store.stats()):
            mine = [job for job in self.jobs.values() if job.priority is stats.priority]
            assert stats.running == sum(job.state is RUNNING for job in mine)
            assert stats.dead == sum(job.state is FAILED for job in mine)
            assert stats.ready + stats.delayed == sum(job.state is QUEUED for job in mine)

    @rule(job_id=ids)
    def the_log_is_whole(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        events = self.run(self.store.events(job_id))
        assert [event.seq for event in events] == list(range(1, (job.events if job else 0) + 1))


def walks() -> settings:
    examples = os.environ.get("PENSTOCK_EXAMPLES")
    return settings(
        max_examples=int(examples or 12),
        stateful_step_count=50 if examples else 30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


@pytest.mark.case(12)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["memory", "sqlite", "redis"])
def test_random_walks_never_leave_the_model(engine: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("redis_server").url if engine == "redis" else ""

    def make(walk: Walk) -> JobStore:
        if engine == "redis":
            return RedisStore(f"{url}?prefix={walk.prefix}", OPTIONS, clock=walk.clock, rng=Half())
        where = "memory://" if engine == "memory" else f"sqlite:///{walk.folder}/jobs.db"
        return SqliteStore(where, OPTIONS, clock=walk.clock, rng=Half())

    run_state_machine_as_test(type("EngineWalk", (Walk,), {"make": make}), settings=walks())
