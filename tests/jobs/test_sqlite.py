"""What is SQLite's own: the file and what may be wrong with it, several processes, clocks, group commit."""

# ruff: noqa: ASYNC220, ASYNC240 (a test may block its own loop for a moment)

import asyncio
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from penstock.errors import ConfigError, DataError, StorageFull
from penstock.jobs import JobsOptions, open_store
from penstock.jobs.base import JobFilter, Outcome
from penstock.jobs.clock import Clock
from penstock.jobs.sqlite import operations
from penstock.jobs.sqlite.schema import connect, prepare
from penstock.jobs.sqlite.store import SqliteStore
from penstock.types import JobState, NewJob

LONGER_THAN_SQLITE_WAITS_S = 2.5


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


async def fill(file: Path, count: int = 3) -> None:
    async with open_store(f"sqlite:///{file}") as store:
        await store.enqueue([NewJob(kind="work", payload={"x": "y" * 1000}) for _ in range(count)])


async def refused(file: Path) -> str:
    with pytest.raises(DataError) as error:
        async with open_store(f"sqlite:///{file}"):
            pass
    assert str(file) in error.value.message
    return error.value.message


async def test_jobs_are_there_when_the_file_is_opened_again(file: Path) -> None:
    await fill(file)
    async with open_store(f"sqlite:///{file}") as store:
        assert store.durable
        assert await store.count(JobFilter()) == 3


@pytest.mark.case(19)
async def test_no_database_at_all(file: Path) -> None:
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    await refused(file)
    assert file.read_bytes().startswith(b"this is no database")


@pytest.mark.case(19)
@pytest.mark.parametrize("how", ["truncated", "overwritten"])
async def test_a_damaged_file_is_not_taken_for_an_empty_one(file: Path, how: str) -> None:
    await fill(file, 300)
    content = file.read_bytes()
    assert not file.with_name("jobs.db-wal").exists()
    half = len(content) // 2
    file.write_bytes(content[:half] if how == "truncated" else content[:4096] + b"\x99" * half + content[4096 + half :])
    assert "damaged" in await refused(file)


@pytest.mark.case(19)
async def test_another_programs_database_is_left_alone(file: Path) -> None:
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    assert "another program" in await refused(file)


@pytest.mark.case(19)
async def test_a_newer_file_is_left_alone(file: Path) -> None:
    await fill(file)
    with sqlite3.connect(file) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    assert "newer" in await refused(file)


@pytest.mark.case(19)
async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    await refused(tmp_path / "nowhere" / "jobs.db")


@pytest.mark.case(19)
async def test_a_file_that_is_a_folder_is_named(file: Path) -> None:
    file.mkdir()
    await refused(file)


def test_a_url_without_a_file_is_refused() -> None:
    for url in ("sqlite://", "sqlite:///", "mysql://x"):
        with pytest.raises(ConfigError):
            open_store(url)


@pytest.mark.case(17)
async def test_a_full_disk_refuses_whole_and_recovers(file: Path) -> None:
    async with open_store(f"sqlite:///{file}") as store:
        assert isinstance(store, SqliteStore)
        await store.enqueue([NewJob(kind="work")])
        await store._writer.run(lambda cx: cx.execute("PRAGMA max_page_count = 60").close(), durable=False)
        with pytest.raises(StorageFull):
            await store.enqueue([NewJob(kind="work", payload={"x": "y" * 500_000})])
        assert await store.count(JobFilter()) == 1
        await store._writer.run(lambda cx: cx.execute("PRAGMA max_page_count = 100000").close(), durable=False)
        await store.enqueue([NewJob(kind="work", payload={"x": "y" * 500_000})])
        assert await store.count(JobFilter()) == 2
    with sqlite3.connect(file) as after:
        assert after.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    after.close()


async def test_one_operation_that_fails_does_not_undo_its_group(file: Path) -> None:
    async with open_store(f"sqlite:///{file}") as store:
        await store.enqueue([NewJob(kind="work", idempotency_key="k", payload={"n": 1})])
        answers = await asyncio.gather(
            *(store.enqueue([NewJob(kind="work", idempotency_key="k" if n % 2 else None)]) for n in range(20)),
            return_exceptions=True,
        )
        assert [isinstance(answer, Exception) for answer in answers] == [bool(n % 2) for n in range(20)]
        assert await store.count(JobFilter()) == 11


async def test_many_writes_at_once_share_few_commits(file: Path) -> None:
    async with open_store(f"sqlite:///{file}") as store:
        assert isinstance(store, SqliteStore)
        watcher = sqlite3.connect(file)

        def version() -> int:
            return int(watcher.execute("PRAGMA data_version").fetchone()[0])

        seen = {version()}
        calls = [asyncio.ensure_future(store.enqueue([NewJob(kind="work")])) for _ in range(200)]
        while not all(call.done() for call in calls):
            await asyncio.sleep(0)
            seen.add(version())
        watcher.close()
        assert len(seen) < 100


@pytest.mark.case(6)
async def test_what_a_heartbeat_costs_grows_with_the_jobs_in_flight_and_no_faster(file: Path) -> None:
    """It holds the file's lock: with a square of 1,000 jobs everybody else waited for half a second."""
    steps = {}
    async with open_store(f"sqlite:///{file}") as store:
        for count in (100, 400):
            await store.enqueue([NewJob(kind="work", payload={}) for _ in range(count)])
            leases = {job.id: job.attempt for job in await store.lease(f"w{count}", kinds=["work"], n=count)}
            assert len(leases) == count
            cx = connect(str(file))
            ticks: list[None] = []
            cx.set_progress_handler(partial(ticks.append, None), 100)
            beat = operations.beat(cx, f"w{count}", leases, until=1e9)
            cx.close()
            assert not beat.lost
            steps[count] = len(ticks)
    assert steps[400] < 8 * steps[100]


async def test_a_jump_of_the_wall_clock_neither_ends_nor_prolongs_a_lease(file: Path) -> None:
    wall, steady = [1_000_000.0], [100.0]
    clock = Clock(wall=lambda: wall[0], steady=lambda: steady[0])
    async with SqliteStore(f"sqlite:///{file}", JobsOptions(lease_s=6), clock=clock) as store:
        await store.enqueue([NewJob(kind="work")])
        (job,) = await store.lease("w", kinds={"work"}, n=1)
        for jump in (3600, -7200):
            wall[0] += jump
            await store.expire()
            assert (await store.get(job.id)).state is JobState.RUNNING
        steady[0] += 6.1
        await store.expire()
        assert (await store.get(job.id)).state is JobState.QUEUED


async def test_leases_from_before_the_machine_was_started_anew_are_lost(file: Path) -> None:
    steady = [1_000_000.0]
    clock = Clock(steady=lambda: steady[0])
    async with SqliteStore(f"sqlite:///{file}", clock=clock) as store:
        await store.enqueue([NewJob(kind="work")])
        (job,) = await store.lease("w", kinds={"work"}, n=1)
        steady[0] = 5.0
        await store.expire()
        assert (await store.get(job.id)).state is JobState.QUEUED


ENQUEUE = """
import asyncio, sys
from penstock.jobs import open_store
from penstock.types import NewJob
async def main():
    async with open_store(sys.argv[1]) as store:
        for _ in range(50):
            await store.enqueue([NewJob(kind="work")])
asyncio.run(main())
"""


async def test_several_processes_write_at_once(file: Path) -> None:
    url = f"sqlite:///{file}"
    async with open_store(url) as store:
        others = [subprocess.Popen([sys.executable, "-c", ENQUEUE, url]) for _ in range(2)]
        done = 0
        with store.doorbell() as bell:
            while done < 100:
                jobs = await store.lease("w", kinds={"work"}, n=10)
                done += len(jobs)
                await store.finish([(job.id, job.attempt, Outcome()) for job in jobs])
                if not jobs:
                    bell.rung.clear()
                    await asyncio.wait_for(bell.rung.wait(), 50)
        assert [await asyncio.to_thread(other.wait) for other in others] == [0, 0]
        assert await store.count(JobFilter(states=frozenset({JobState.SUCCEEDED}))) == 100


async def test_a_locked_file_is_said_to_be_locked(file: Path) -> None:
    await fill(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "locked" in await refused(file)
    finally:
        other.close()


def test_a_file_that_another_process_is_making_is_waited_for(file: Path) -> None:
    """As at the first start of `penstock serve`, whose api and worker open the file in the same moment."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    made = threading.Timer(LONGER_THAN_SQLITE_WAITS_S, other.rollback)
    made.start()
    prepare(str(file)).close()
    made.join()
    other.close()
