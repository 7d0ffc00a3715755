"""Real worker processes that are killed, stopped, poisoned and told to stop."""

# ruff: noqa: ASYNC240 (a test may block its own loop for a moment)

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from penstock.ids import new_id
from penstock.jobs import JobsOptions, JobStore, open_store
from penstock.jobs.base import JobFilter
from penstock.jobs.neighbours import machine_id
from penstock.types import Job, JobState, NewJob

LEASE_S = 3.0
"""So long that a stalled machine does not end it, and so short that a test can wait for its end."""

STUCK = {"stuck": 1}
"""The first attempt never ends."""

Process: TypeAlias = "subprocess.Popen[bytes]"


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return f"{request.getfixturevalue('redis_server').url}?prefix={new_id('procs')}"


@pytest.fixture
async def shared(url: str) -> AsyncIterator[JobStore]:
    async with open_store(url, JobsOptions(lease_s=LEASE_S)) as store:
        yield store


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    file = tmp_path / "ledger"
    file.touch()
    return file


@pytest.fixture
def start(url: str, ledger: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(lease_s: float = LEASE_S) -> Process:
        script = Path(__file__).with_name("worker_process.py")
        started.append(subprocess.Popen([sys.executable, str(script), url, str(ledger), str(lease_s)]))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def noted(ledger: Path, what: str, count: int) -> list[list[str]]:
    """The ledger's lines that end so, once there are so many."""
    while True:
        lines = [line.split() for line in ledger.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if line[2] == what]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.01)


async def accept(store: JobStore, *new: NewJob) -> list[Job]:
    return [each.job for each in await store.enqueue(new)]


async def all_final(store: JobStore, jobs: list[Job]) -> list[Job]:
    return [await store.wait(job.id, timeout_s=40) for job in jobs]


@pytest.mark.case(1)
async def test_a_killed_workers_jobs_are_done_by_another(
    shared: JobStore, ledger: Path, start: Callable[[], Process]
) -> None:
    first = start()
    jobs = await accept(shared, *(NewJob(kind="work", payload=STUCK) for _ in range(20)))
    await noted(ledger, "begun", 20)
    first.kill()
    start()
    for job in await all_final(shared, jobs):
        assert (job.state, job.result) == (JobState.SUCCEEDED, 2)
        assert [failure.code for failure in job.failures] == ["worker_died"]


@pytest.mark.case(1)
@pytest.mark.skipif(not machine_id(), reason="needs /proc")
async def test_a_dead_neighbours_jobs_are_taken_over_long_before_their_leases_end(
    url: str, ledger: Path, start: Callable[..., Process]
) -> None:
    async with open_store(url, JobsOptions(lease_s=600)) as store:
        first = start(600)
        jobs = await accept(store, *(NewJob(kind="work", payload=STUCK) for _ in range(5)))
        await noted(ledger, "begun", 5)
        first.kill()
        start(600)
        assert [(job.state, job.result) for job in await all_final(store, jobs)] == [(JobState.SUCCEEDED, 2)] * 5
        assert len(await store.workers()) == 1


@pytest.mark.case(5)
async def test_a_frozen_workers_late_write_is_refused(
    shared: JobStore, ledger: Path, start: Callable[[], Process]
) -> None:
    frozen = start()
    (job,) = await accept(shared, NewJob(kind="work", payload={"seconds": 2}))
    await noted(ledger, "begun", 1)
    with stopped(frozen):
        start()
        (done,) = await all_final(shared, [job])
        assert (done.state, done.result) == (JobState.SUCCEEDED, 2)
    await noted(ledger, "done", 1)
    (after,) = await accept(shared, NewJob(kind="work"))
    await all_final(shared, [after])
    assert await shared.get(job.id) == done


@pytest.mark.case(7)
async def test_a_poison_job_is_failed_and_the_innocent_are_done(
    shared: JobStore, ledger: Path, start: Callable[[], Process]
) -> None:
    innocent = [NewJob(kind="work", payload={"seconds": 0.2}) for _ in range(8)]
    jobs = await accept(shared, NewJob(kind="poison"), *innocent)
    deaths = 0
    worker = start()
    while (await shared.get(jobs[0].id)).state is not JobState.FAILED:
        if worker.poll() is not None:
            assert worker.returncode == 139
            deaths += 1
            worker = start()
        await asyncio.sleep(0.02)
    poison, *others = await all_final(shared, jobs)
    assert deaths == 3
    assert poison.error is not None
    assert poison.error.code == "worker_died"
    assert {job.state for job in others} == {JobState.SUCCEEDED}


@pytest.mark.case(8)
async def test_sigterm_under_load_loses_nothing_and_waits_for_no_lease(
    shared: JobStore, ledger: Path, start: Callable[[], Process]
) -> None:
    worker = start()
    jobs = await accept(shared, *(NewJob(kind="work", payload={"seconds": 1}) for _ in range(300)))
    await noted(ledger, "begun", 50)
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 50) == 0
    assert await shared.count(JobFilter(states=frozenset({JobState.RUNNING}))) == 0
    begun = await noted(ledger, "begun", 0)
    start()
    for job in await all_final(shared, jobs):
        assert (job.state, list(job.failures)) == (JobState.SUCCEEDED, [])
    assert len(await noted(ledger, "begun", 300)) == 300
    assert len(begun) < 300


@pytest.mark.case(3)
async def test_everything_killed_and_started_anew_loses_nothing(
    url: str, ledger: Path, start: Callable[[], Process]
) -> None:
    async with open_store(url, JobsOptions(lease_s=LEASE_S)) as store:
        workers = [start(), start()]
        jobs = await accept(store, *(NewJob(kind="work", payload={"seconds": 0.05}) for _ in range(400)))
        await noted(ledger, "done", 50)
        for worker in workers:
            worker.kill()
    async with open_store(url, JobsOptions(lease_s=LEASE_S)) as store:
        start()
        assert {job.state for job in await all_final(store, jobs)} == {JobState.SUCCEEDED}
        assert await store.count(JobFilter()) == 400
