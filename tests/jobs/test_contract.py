"""What every job store promises, whatever its engine."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from penstock.errors import Conflict, InvalidInput, LeaseLost, NotFound, Overloaded, TooLarge
from penstock.jobs.base import JobFilter, JobStore, NewEvent, Outcome, Report
from penstock.jobs.options import Limit
from penstock.types import Failure, Job, JobEvent, JobState, NewJob, Priority, Progress, WorkerInfo

OK = Outcome(result={"ok": True})
BROKEN = Failure(code="broken", message="it broke")


async def one(store: JobStore, **fields: Any) -> Job:
    (accepted,) = await store.enqueue([NewJob(**({"kind": "work"} | fields))])
    return accepted.job


async def take(store: JobStore, n: int = 1, worker: str = "w1", **more: Any) -> Sequence[Job]:
    return await store.lease(worker, kinds=more.pop("kinds", {"work"}), n=n, **more)


async def until_leased(store: JobStore) -> Job:
    """The next job, as soon as there is one."""
    with store.doorbell() as bell:
        while not (leased := await take(store)):
            bell.rung.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.rung.wait(), 0.05)
    return leased[0]


async def until_expired(store: JobStore, count: int = 1) -> None:
    """Tidy until so many jobs were touched (the time-out of the test is the bound)."""
    while count > 0:
        count -= await store.expire()
        await asyncio.sleep(0.005)


# --- enqueue ---------------------------------------------------------------------------------------------------------


async def test_an_enqueued_job_can_be_read_with_all_that_was_asked(store: JobStore) -> None:
    asked = NewJob(
        kind="work",
        payload={"a": [1, 2.5, None, True, "ü汉"], "b": {}},
        id="job-1",
        tenant="t",
        priority=Priority.BULK,
        subject="doc/1",
        idempotency_key="key",
        deadline=4e9,
        time_limit_s=5.0,
        max_attempts=7,
        result_ttl_s=60.0,
    )
    (accepted,) = await store.enqueue([asked])
    assert accepted.created
    job = await store.get("job-1", tenant="t")
    assert job.state is JobState.QUEUED
    assert job.payload == asked.payload
    assert (job.attempt, job.worker, job.result, job.error, list(job.failures)) == (0, None, None, None, [])
    for name in (
        "kind",
        "tenant",
        "priority",
        "subject",
        "idempotency_key",
        "deadline",
        "time_limit_s",
        "max_attempts",
    ):
        assert getattr(job, name) == getattr(asked, name), name
    assert accepted.job.id == job.id
    assert abs(accepted.job.created_at - job.created_at) < 0.001


async def test_payloads_keep_empty_lists_and_empty_objects_apart(store: JobStore) -> None:
    payload = {"list": [], "object": {}, "deep": [[], {}], "big": 2**53, "tiny": 1e-9}
    job = await one(store, payload=payload)
    assert (await store.get(job.id)).payload == payload
    (leased,) = await take(store)
    assert leased.payload == payload
    await store.finish([(job.id, 1, Outcome(result=payload))])
    assert (await store.get(job.id)).result == payload


async def test_the_same_key_and_payload_give_the_same_job(store: JobStore) -> None:
    first = await one(store, payload={"a": 1, "b": 2}, idempotency_key="k")
    (again,) = await store.enqueue([NewJob(kind="work", payload={"b": 2, "a": 1}, idempotency_key="k")])
    assert (again.created, again.job.id) == (False, first.id)
    other_tenant = await one(store, payload={"a": 1}, idempotency_key="k", tenant="other")
    assert other_tenant.id != first.id


async def test_the_same_key_in_one_call_gives_one_job(store: JobStore) -> None:
    asked = NewJob(kind="work", idempotency_key="k")
    first, second = await store.enqueue([asked, asked])
    assert (first.created, second.created) == (True, False)
    assert first.job.id == second.job.id
    assert await store.count(JobFilter()) == 1


@pytest.mark.case(9)
async def test_many_enqueues_at_once_with_one_key_make_one_job(store: JobStore) -> None:
    asked = NewJob(kind="work", payload={"x": 1}, idempotency_key="k")
    answers = await asyncio.gather(*(store.enqueue([asked]) for _ in range(100)))
    assert len({answer[0].job.id for answer in answers}) == 1
    assert sum(answer[0].created for answer in answers) == 1


async def test_the_same_key_with_another_payload_is_a_conflict(store: JobStore) -> None:
    await one(store, payload={"a": 1}, idempotency_key="k")
    with pytest.raises(Conflict):
        await one(store, payload={"a": 2}, idempotency_key="k")
    with pytest.raises(Conflict):
        await store.enqueue([NewJob(kind="work"), NewJob(kind="other", payload={"a": 1}, idempotency_key="k")])
    assert await store.count(JobFilter()) == 1


async def test_a_chosen_id_is_accepted_once(store: JobStore) -> None:
    await one(store, id="mine", payload={"a": 1})
    (again,) = await store.enqueue([NewJob(kind="work", id="mine", payload={"a": 1})])
    assert not again.created
    with pytest.raises(Conflict):
        await one(store, id="mine", payload={"a": 2})
    with pytest.raises(Conflict):
        await one(store, id="mine", payload={"a": 1}, tenant="other")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": ""}, {"kind": "a:b"}, {"tenant": ""}, {"tenant": "a\nb"}, {"payload": {"x": object()}},
        {"payload": {"x": "\ud800"}}, {"max_attempts": 0}, {"time_limit_s": 0.0}, {"run_at": float("nan")},
        {"idempotency_key": "k" * 256},
    ],
)  # fmt: skip
async def test_what_cannot_be_a_job_is_refused(store: JobStore, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await store.enqueue([NewJob(kind="work"), NewJob(**({"kind": "work"} | fields))])
    assert await store.count(JobFilter()) == 0


async def test_a_payload_over_the_bound_is_too_large(make_store: Any) -> None:
    store = await make_store(max_payload_bytes=100)
    with pytest.raises(TooLarge):
        await one(store, payload={"x": "y" * 100})


async def test_a_foreign_job_is_not_found(store: JobStore) -> None:
    job = await one(store, tenant="a")
    for verb in (store.get, store.cancel, store.retry):
        with pytest.raises(NotFound):
            await verb(job.id, tenant="b")
        with pytest.raises(NotFound):
            await verb("no-such-job")
    assert (await store.get(job.id)).state is JobState.QUEUED


# --- admission -------------------------------------------------------------------------------------------------------


async def test_over_the_limit_of_jobs_it_is_refused_whole(make_store: Any) -> None:
    store = await make_store(limits={Priority.NORMAL: Limit(jobs=3, payload_bytes=1000)}, tenant_limits={})
    await store.enqueue([NewJob(kind="work"), NewJob(kind="work")])
    with pytest.raises(Overloaded) as refused:
        await store.enqueue([NewJob(kind="work"), NewJob(kind="work")])
    assert refused.value.retry_after_s >= 1
    assert await store.count(JobFilter()) == 2
    await one(store)
    await one(store, priority=Priority.INTERACTIVE)


async def test_over_the_limit_of_bytes_it_is_refused(make_store: Any) -> None:
    store = await make_store(limits={}, tenant_limits={Priority.NORMAL: Limit(jobs=10, payload_bytes=100)})
    await one(store, payload={"x": "y" * 60})
    with pytest.raises(Overloaded):
        await one(store, payload={"x": "y" * 60})
    await one(store, payload={"x": "y" * 60}, tenant="other")


async def test_room_comes_back_with_every_way_a_job_can_end(make_store: Any) -> None:
    store = await make_store(limits={Priority.NORMAL: Limit(jobs=1, payload_bytes=1000)}, lease_s=0.02)
    for end in ("succeed", "fail", "cancel queued", "cancel running", "die", "deadline"):
        job = await one(store, max_attempts=1, deadline=1.0 if end == "deadline" else None)
        with pytest.raises(Overloaded):
            await one(store)
        if end not in {"cancel queued", "deadline"}:
            await take(store)
        if end.startswith("cancel"):
            await store.cancel(job.id)
        if end in {"succeed", "cancel running"}:
            assert not await store.finish([(job.id, 1, OK)])
        if end == "fail":
            assert not await store.finish([(job.id, 1, Outcome(failure=BROKEN))])
        if end in {"die", "deadline"}:
            await until_expired(store)
        assert (await store.get(job.id)).state.final, end


async def test_a_known_job_is_answered_even_when_the_queue_is_full(make_store: Any) -> None:
    store = await make_store(limits={Priority.NORMAL: Limit(jobs=1, payload_bytes=1000)})
    job = await one(store, idempotency_key="k")
    assert (await one(store, idempotency_key="k")).id == job.id


# --- order -----------------------------------------------------------------------------------------------------------


async def test_classes_then_arrival(store: JobStore) -> None:
    order = [Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE, Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE]
    jobs = [await one(store, priority=priority) for priority in order]
    leased = [job.id for job in await take(store, 10)]
    assert leased == [jobs[i].id for i in (2, 5, 1, 4, 0, 3)]


async def test_one_tenants_many_jobs_barely_delay_anothers_first(store: JobStore) -> None:
    await store.enqueue([NewJob(kind="work", tenant="big") for _ in range(200)])
    small = (await store.enqueue([NewJob(kind="work", tenant="small")]))[0]
    assert small.position <= 1
    leased = [job.id for job in await take(store, 2)]
    assert small.job.id in leased
    late = await one(store, tenant="small")
    assert late.id in [job.id for job in await take(store, 3)]


async def test_a_tenants_share_follows_its_weight(make_store: Any) -> None:
    store = await make_store(weights={"double": 2.0})
    for tenant in ("single", "double"):
        await store.enqueue([NewJob(kind="work", tenant=tenant) for _ in range(40)])
    first = [job.tenant for job in await take(store, 30)]
    assert 19 <= first.count("double") <= 21


async def test_a_lower_class_that_waited_gets_its_share_and_no_more(make_store: Any) -> None:
    store = await make_store(aged_after_s=0.0, aged_every=4)
    await store.enqueue([NewJob(kind="work", priority=Priority.BULK) for _ in range(40)])
    await store.enqueue([NewJob(kind="work", priority=Priority.INTERACTIVE) for _ in range(40)])
    leased = [job.priority for job in await take(store, 20)]
    assert leased.count(Priority.BULK) == 5


async def test_background_bounds_what_is_not_interactive(store: JobStore) -> None:
    for priority in Priority:
        await store.enqueue([NewJob(kind="work", priority=priority) for _ in range(3)])
    leased = [job.priority for job in await take(store, 9, background=2)]
    assert leased == [Priority.INTERACTIVE] * 3 + [Priority.NORMAL] * 2
    assert not await take(store, 9, background=0)


async def test_only_the_kinds_asked_for_are_leased(store: JobStore) -> None:
    await one(store, kind="a")
    wanted = await one(store, kind="b")
    assert [job.id for job in await take(store, 5, kinds={"b", "c"})] == [wanted.id]
    assert not await take(store, 5, kinds=set())


async def test_a_delayed_job_waits_for_its_moment(store: JobStore) -> None:
    now = (await one(store, kind="now")).created_at
    later = await one(store, run_at=now + 0.3)
    far = await one(store, run_at=now + 3600)
    assert not await take(store, 5)
    leased = await until_leased(store)
    assert leased.id == later.id
    assert leased.started_at is not None
    assert leased.started_at >= later.run_at
    assert (await store.get(far.id)).state is JobState.QUEUED


async def test_a_job_past_its_deadline_is_not_run(store: JobStore) -> None:
    job = await one(store, deadline=1.0)
    assert not await take(store, 5)
    found = await store.get(job.id)
    assert found.state is JobState.FAILED
    assert found.error is not None
    assert found.error.code == "deadline_exceeded"


# --- lease, beat, finish ---------------------------------------------------------------------------------------------


async def test_a_lease_counts_the_attempt_and_names_the_worker(store: JobStore) -> None:
    job = await one(store)
    (leased,) = await take(store)
    assert (leased.id, leased.attempt, leased.worker, leased.state) == (job.id, 1, "w1", JobState.RUNNING)
    assert not await take(store)
    assert await store.get(job.id) == leased


async def test_concurrent_leases_never_share_a_job(store: JobStore) -> None:
    await store.enqueue([NewJob(kind="work") for _ in range(50)])
    leases = await asyncio.gather(*(take(store, 7, worker=f"w{i}") for i in range(10)))
    ids = [job.id for lease in leases for job in lease]
    assert len(ids) == 50
    assert len(set(ids)) == 50


async def test_a_finished_job_has_its_result_and_never_changes(store: JobStore) -> None:
    job = await one(store)
    await take(store)
    assert not await store.finish([(job.id, 1, OK)])
    found = await store.get(job.id)
    assert (found.state, found.result, found.worker) == (JobState.SUCCEEDED, {"ok": True}, None)
    assert found.finished_at is not None
    assert await store.finish([(job.id, 1, Outcome(failure=BROKEN))]) == {job.id}
    assert await store.cancel(job.id) == found
    with pytest.raises(Conflict):
        await store.retry(job.id)
    assert await store.get(job.id) == found


async def test_finish_takes_many_and_names_the_lost(store: JobStore) -> None:
    jobs = [await one(store) for _ in range(4)]
    await take(store, 3)
    lost = await store.finish(
        [(jobs[0].id, 1, OK), (jobs[1].id, 2, OK), (jobs[2].id, 1, Outcome(failure=BROKEN)), (jobs[3].id, 1, OK),
         ("none", 1, OK), (jobs[0].id, 1, Outcome(failure=BROKEN))]
    )  # fmt: skip
    assert {jobs[1].id, jobs[3].id, "none"} <= lost
    states = [(await store.get(job.id)).state for job in jobs]
    assert states == [JobState.SUCCEEDED, JobState.RUNNING, JobState.FAILED, JobState.QUEUED]


async def test_a_result_that_is_no_json_fails_the_job(make_store: Any) -> None:
    store = await make_store(max_result_bytes=100)
    for result, code in ((object(), "invalid_input"), ("x" * 200, "too_large")):
        job = await one(store)
        await take(store)
        await store.finish([(job.id, 1, Outcome(result=result))])
        error = (await store.get(job.id)).error
        assert error is not None
        assert error.code == code


async def test_a_retried_failure_waits_then_runs_until_attempts_are_used_up(make_store: Any) -> None:
    store = await make_store(backoff_base_s=0.01, backoff_cap_s=0.02)
    job = await one(store, max_attempts=3)
    for attempt in (1, 2, 3):
        assert (await until_leased(store)).attempt == attempt
        await store.finish([(job.id, attempt, Outcome(failure=BROKEN, retry=True))])
    found = await store.get(job.id)
    assert found.state is JobState.FAILED
    assert [(failure.code, failure.attempt) for failure in found.failures] == [("broken", n) for n in (1, 2, 3)]
    assert found.error is not None
    assert (found.error.code, found.error.message, found.error.attempt) == ("broken", "it broke", 3)


async def test_a_failure_without_retry_is_final_at_once(store: JobStore) -> None:
    job = await one(store, max_attempts=3)
    await take(store)
    await store.finish([(job.id, 1, Outcome(failure=BROKEN))])
    assert (await store.get(job.id)).state is JobState.FAILED


async def test_beat_keeps_a_lease_alive(make_store: Any) -> None:
    store = await make_store(lease_s=1.5)
    kept, dropped = await one(store), await one(store)
    await take(store, 2)
    while (await store.get(dropped.id)).state is JobState.RUNNING:
        beat = await asyncio.to_thread(store.beat, "w1", {kept.id: 1})
        assert not beat.lost
        await store.expire()
        await asyncio.sleep(0.02)
    assert (await store.get(kept.id)).state is JobState.RUNNING
    (again,) = await take(store, worker="w2")
    assert (again.id, again.attempt) == (dropped.id, 2)


@pytest.mark.case(5)
async def test_a_zombies_late_writes_are_refused(make_store: Any) -> None:
    store = await make_store(lease_s=0.02)
    job = await one(store)
    await take(store)
    await until_expired(store)
    await take(store, worker="w2")
    assert (await asyncio.to_thread(store.beat, "w1", {job.id: 1})).lost == {job.id}
    with pytest.raises(LeaseLost):
        await store.append(job.id, 1, [NewEvent(type="delta", data={"text": "late"})])
    assert await store.finish([(job.id, 1, Outcome(result="zombie"))]) == {job.id}
    assert not await store.finish([(job.id, 2, Outcome(result="second"))])
    assert (await store.get(job.id)).result == "second"
    assert "late" not in str(await store.events(job.id))


async def test_a_beat_for_another_workers_lease_is_lost(store: JobStore) -> None:
    job = await one(store)
    await take(store)
    assert (await asyncio.to_thread(store.beat, "w2", {job.id: 1})).lost == {job.id}


@pytest.mark.case(7)
async def test_a_job_that_loses_all_its_leases_fails_with_the_reason(make_store: Any) -> None:
    store = await make_store(lease_s=0.01)
    job = await one(store, max_attempts=2)
    for _ in range(2):
        await take(store)
        await until_expired(store)
    found = await store.get(job.id)
    assert found.state is JobState.FAILED
    assert found.error is not None
    assert found.error.code == "worker_died"
    assert [failure.attempt for failure in found.failures] == [1, 2]


@pytest.mark.case(7)
async def test_jobs_on_their_last_life_run_one_at_a_time_in_a_worker(store: JobStore) -> None:
    await store.enqueue([NewJob(kind="work", max_attempts=2) for _ in range(5)])
    assert len(await take(store, 5)) == 5
    assert await store.hand_back("w1", died=True) == 5
    fresh = await one(store)
    leased = await take(store, 5, worker="w2")
    assert len(leased) == 2
    assert fresh.id in {job.id for job in leased}
    assert not await take(store, 5, worker="w2")
    assert len(await take(store, 5, worker="w3")) == 1
    await store.finish([(job.id, job.attempt, OK) for job in leased])
    assert len(await take(store, 5, worker="w2")) == 1


async def test_handed_back_jobs_do_not_wait_and_the_attempt_does_not_count(store: JobStore) -> None:
    job = await one(store, max_attempts=1)
    for attempt in (1, 2, 3):
        (leased,) = await take(store, worker=f"w{attempt}")
        assert leased.attempt == attempt
        assert leased.last_attempt
        assert await store.hand_back(f"w{attempt}") == 1
    assert await store.hand_back("w3") == 0
    assert await store.finish([(job.id, 3, OK)]) == {job.id}
    await take(store)
    assert not await store.finish([(job.id, 4, OK)])
    assert list((await store.get(job.id)).failures) == []


async def test_a_dead_workers_jobs_count_the_attempt(store: JobStore) -> None:
    job = await one(store, max_attempts=1)
    await take(store)
    await store.hand_back("w1", died=True)
    assert (await store.get(job.id)).state is JobState.FAILED


# --- cancel and retry ------------------------------------------------------------------------------------------------


@pytest.mark.case(10)
async def test_a_queued_job_is_cancelled_at_once(store: JobStore) -> None:
    job = await one(store)
    assert (await store.cancel(job.id)).state is JobState.CANCELLED
    assert not await take(store)


@pytest.mark.case(10)
async def test_a_delayed_job_can_be_cancelled(store: JobStore) -> None:
    job = await one(store, run_at=4e9)
    assert (await store.cancel(job.id)).state is JobState.CANCELLED


@pytest.mark.case(10)
@pytest.mark.parametrize("outcome", [OK, Outcome(failure=BROKEN, retry=True), Outcome(cancelled=True)])
async def test_a_running_job_that_was_cancelled_ends_cancelled_whatever_it_says(
    store: JobStore, outcome: Outcome
) -> None:
    job = await one(store)
    await take(store)
    asked = await store.cancel(job.id)
    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert (await asyncio.to_thread(store.beat, "w1", {job.id: 1})).cancelled == {job.id}
    assert not await store.finish([(job.id, 1, outcome)])
    found = await store.get(job.id)
    assert (found.state, found.result) == (JobState.CANCELLED, None)


async def test_a_cancelled_job_whose_worker_dies_or_stops_ends_cancelled(store: JobStore) -> None:
    for died in (True, False):
        job = await one(store)
        await take(store)
        await store.cancel(job.id)
        await store.hand_back("w1", died=died)
        assert (await store.get(job.id)).state is JobState.CANCELLED


async def test_retry_renews_the_attempts_and_keeps_the_failures(store: JobStore) -> None:
    job = await one(store, max_attempts=2, deadline=4e9)
    await take(store)
    await store.finish([(job.id, 1, Outcome(failure=BROKEN))])
    again = await store.retry(job.id)
    assert (again.state, again.error, again.finished_at, again.deadline) == (JobState.QUEUED, None, None, None)
    assert [failure.code for failure in again.failures] == ["broken"]
    (leased,) = await take(store)
    assert (leased.attempt, leased.excused, leased.last_attempt) == (2, 1, False)
    await store.finish([(job.id, 2, OK)])
    assert (await store.get(job.id)).state is JobState.SUCCEEDED


async def test_a_retried_cancel_forgets_the_cancel(store: JobStore) -> None:
    job = await one(store)
    await take(store)
    await store.cancel(job.id)
    await store.finish([(job.id, 1, OK)])
    assert not (await store.retry(job.id)).cancel_requested
    await take(store)
    await store.finish([(job.id, 2, OK)])
    assert (await store.get(job.id)).state is JobState.SUCCEEDED


async def test_cancel_all_and_retry_all_touch_what_matches(store: JobStore) -> None:
    await store.enqueue([NewJob(kind="work", tenant="a") for _ in range(5)])
    await store.enqueue([NewJob(kind="work", tenant="b") for _ in range(5)])
    await take(store, 2)
    assert await store.cancel_all(JobFilter(tenant="a")) == 5
    assert await store.count(JobFilter(states=frozenset({JobState.QUEUED}))) == 5 - await _running(store, "b")
    await store.hand_back("w1")
    cancelled = JobFilter(tenant="a", states=frozenset({JobState.CANCELLED}))
    assert await store.count(cancelled) == 5
    assert await store.retry_all(JobFilter()) == 5
    assert await store.count(cancelled) == 0


async def _running(store: JobStore, tenant: str) -> int:
    return await store.count(JobFilter(tenant=tenant, states=frozenset({JobState.RUNNING})))


# --- list and count --------------------------------------------------------------------------------------------------


async def test_pages_are_newest_first_and_do_not_shift(store: JobStore) -> None:
    jobs = [await one(store) for _ in range(7)]
    page = await store.list(JobFilter(), limit=3)
    await one(store)
    seen = [job.id for job in page.jobs]
    while page.cursor:
        page = await store.list(JobFilter(), cursor=page.cursor, limit=3)
        seen += [job.id for job in page.jobs]
    assert seen == [job.id for job in reversed(jobs)]
    with pytest.raises(InvalidInput):
        await store.list(JobFilter(), cursor="x' OR 1")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (JobFilter(), {0, 1, 2, 3}),
        (JobFilter(tenant="t"), {1, 3}),
        (JobFilter(kinds=frozenset({"other"})), {2}),
        (JobFilter(priorities=frozenset({Priority.BULK, Priority.INTERACTIVE})), {3}),
        (JobFilter(subject="doc"), {0, 3}),
        (JobFilter(states=frozenset({JobState.CANCELLED})), {1}),
        (JobFilter(states=frozenset({JobState.CANCELLED, JobState.QUEUED}), tenant="t"), {1, 3}),
        (JobFilter(states=frozenset({JobState.SUCCEEDED})), set()),
        (JobFilter(tenant="nobody"), set()),
    ],
)
async def test_filters(store: JobStore, where: JobFilter, expected: set[int]) -> None:
    jobs = [
        await one(store, subject="doc"),
        await one(store, tenant="t"),
        await one(store, kind="other"),
        await one(store, tenant="t", subject="doc", priority=Priority.BULK),
    ]
    await store.cancel(jobs[1].id)
    page = await store.list(where)
    assert {job.id for job in page.jobs} == {jobs[i].id for i in expected}
    assert await store.count(where) == len(expected)


# --- events ----------------------------------------------------------------------------------------------------------


async def watched(store: JobStore, job_id: str, after: int = 0) -> list[JobEvent]:
    return [event async for event in store.watch(job_id, after=after)]


def told(events: Sequence[JobEvent]) -> list[Any]:
    return [event.data.get("state") or event.data.get("text") or event.type for event in events]


async def test_the_log_is_numbered_from_one_and_resumable(store: JobStore) -> None:
    job = await one(store)
    await take(store)
    await store.append(job.id, 1, [NewEvent(type="delta", data={"text": t}) for t in "ab"], Progress(stage="s", done=1))
    await store.finish([(job.id, 1, OK)])
    events = await store.events(job.id)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert told(events) == ["running", "a", "b", "progress", "succeeded"]
    assert {event.attempt for event in events} == {1}
    assert await store.events(job.id, after=3) == events[3:]
    assert await store.events(job.id, after=1, limit=2) == events[1:3]
    assert (await store.get(job.id)).progress == Progress(stage="s", done=1)
    assert await watched(store, job.id, after=2) == list(events[2:])
    assert await watched(store, job.id, after=99) == []


async def test_many_watchers_see_everything_live_and_end_with_the_job(make_store: Any, engine_url: str) -> None:
    store = await make_store()
    far = store if engine_url.startswith("memory") else await make_store()
    job = await one(store)
    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(watched(s, job.id)) for s in (store, far, far)]
        await take(store)
        for text in "abcdef":
            await store.append(job.id, 1, [NewEvent(type="delta", data={"text": text})])
            await asyncio.sleep(0.003)
        await store.finish([(job.id, 1, OK)])
    for watcher in watchers:
        assert told(watcher.result()) == ["running", *"abcdef", "succeeded"]


async def test_a_slow_watcher_misses_nothing(store: JobStore) -> None:
    job = await one(store)
    await take(store)
    seen = []
    async for event in store.watch(job.id):
        seen.append(event.seq)
        if event.seq == 1:
            for _ in range(5):
                await store.append(job.id, 1, [NewEvent(type="delta", data={"text": "x"})] * 100)
            await store.finish([(job.id, 1, OK)])
            await asyncio.sleep(0.05)
    assert seen == list(range(1, 503))


async def test_a_watch_from_the_start_passes_an_earlier_end(store: JobStore) -> None:
    job = await one(store)
    await store.cancel(job.id)
    await store.retry(job.id)
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watched(store, job.id))
        await take(store)
        await store.finish([(job.id, 1, OK)])
    assert told(watcher.result()) == ["cancelled", "queued", "running", "succeeded"]


async def test_the_log_is_bounded(make_store: Any) -> None:
    store = await make_store(max_events=10, max_event_bytes=100)
    job = await one(store)
    await take(store)
    await store.append(job.id, 1, [NewEvent(type="delta", data={"n": n}) for n in range(50)])
    events = await store.events(job.id)
    assert len(events) == 10
    assert (events[-1].seq, events[-1].data) == (51, {"n": 49})
    with pytest.raises(TooLarge):
        await store.append(job.id, 1, [NewEvent(type="delta", data={"text": "x" * 200})])


async def test_reports_of_many_jobs_go_together(store: JobStore) -> None:
    jobs = [await one(store) for _ in range(3)]
    await take(store, 3)
    delta = [NewEvent(type="delta", data={"text": "x"})]
    reports = [Report(job_id=job.id, attempt=1 + (i == 2), events=delta) for i, job in enumerate(jobs)]
    assert await store.report([*reports, reports[0]]) == {jobs[2].id}
    assert [len(await store.events(job.id)) for job in jobs] == [3, 2, 1]


async def test_wait_returns_at_the_end_or_at_the_time_out(make_store: Any, engine_url: str) -> None:
    store = await make_store()
    far = store if engine_url.startswith("memory") else await make_store()
    job = await one(store)
    assert (await store.wait(job.id, timeout_s=0.02)).state is JobState.QUEUED
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(far.wait(job.id, timeout_s=30))
        await take(store)
        await store.finish([(job.id, 1, OK)])
    assert waiter.result().result == {"ok": True}
    assert (await store.wait(job.id, timeout_s=0)).state is JobState.SUCCEEDED
    with pytest.raises(NotFound):
        await store.wait("none", timeout_s=1)


# --- wake-ups --------------------------------------------------------------------------------------------------------


async def test_the_bell_rings_for_ready_jobs_and_cancels(make_store: Any, engine_url: str) -> None:
    store = await make_store()
    far = store if engine_url.startswith("memory") else await make_store()
    with store.doorbell() as bell:
        job = await one(far)
        await bell.rung.wait()
        await take(store)
        bell.rung.clear()
        await far.cancel(job.id)
        while job.id not in bell.cancels:
            await bell.rung.wait()
            bell.rung.clear()


async def test_the_bell_rings_when_a_delayed_job_is_due(store: JobStore) -> None:
    with store.doorbell() as bell:
        now = (await one(store, kind="other")).created_at
        await one(store, run_at=now + 0.15)
        while not await take(store):
            bell.rung.clear()
            await asyncio.wait_for(bell.rung.wait(), 50)


# --- time to live, statistics, workers --------------------------------------------------------------------------------


async def test_old_records_and_their_keys_and_events_are_forgotten(store: JobStore) -> None:
    job = await one(store, idempotency_key="k", result_ttl_s=0.01, subject="s")
    live = await one(store)
    await take(store)
    await store.finish([(job.id, 1, OK)])
    await until_expired(store)
    with pytest.raises(NotFound):
        await store.get(job.id)
    assert await store.events(job.id) == []
    assert [found.id for found in (await store.list(JobFilter())).jobs] == [live.id]
    assert await store.count(JobFilter(subject="s")) == 0
    assert (await one(store, idempotency_key="k", payload={"new": 1})).id != job.id


async def test_a_finished_jobs_log_is_forgotten_before_its_result(make_store: Any) -> None:
    store = await make_store(events_ttl_s=0.0)
    job = await one(store)
    await take(store)
    await store.finish([(job.id, 1, OK)])
    while await store.events(job.id):
        await store.expire()
        await asyncio.sleep(0.005)
    assert (await store.get(job.id)).result == {"ok": True}
    assert await watched(store, job.id) == []


async def test_stats_tell_the_health_of_each_class(store: JobStore) -> None:
    await one(store, run_at=4e9)
    for _ in range(5):
        await one(store)
    leased = await take(store, 3)
    await store.finish([(leased[0].id, 1, OK), (leased[1].id, 1, Outcome(failure=BROKEN))])
    stats = {each.priority: each for each in await store.stats()}
    assert list(stats) == list(Priority)
    normal = stats[Priority.NORMAL]
    assert (normal.ready, normal.running, normal.delayed, normal.dead) == (2, 1, 1, 1)
    assert 0 < normal.oldest_ready_age_s < 60
    assert normal.drain_per_s > 0
    assert set(normal.wait_s) == set(normal.run_s) == {"p50", "p95", "p99"}
    idle = stats[Priority.BULK]
    assert (idle.ready, idle.running, idle.delayed, idle.dead, idle.drain_per_s, idle.run_s) == (0, 0, 0, 0, 0.0, {})


async def test_workers_are_listed_while_they_are_seen(store: JobStore) -> None:
    info = WorkerInfo(id="w1", host="h", pid=1, kinds=["a"], concurrency=2, ready=False, models=["m"])
    await store.register(info)
    await store.register(WorkerInfo(id="w1", host="h", pid=1, kinds=["a"], concurrency=2, ready=True, running=1))
    (found,) = await store.workers()
    assert (found.ready, found.running, list(found.kinds)) == (True, 1, ["a"])
    assert found.seen_at > 0
    await store.unregister("w1")
    assert await store.workers() == []


async def test_ping(store: JobStore) -> None:
    await store.ping()
