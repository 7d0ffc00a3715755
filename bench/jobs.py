"""The job layer: throughput of no-op jobs, round trip, recovery after kill -9, on SQLite and Redis.

    python bench/jobs.py [--quick] [--no-peers] [--json]

One worker process, one client process. `noop_per_s`: the jobs lie ready when the worker starts; from its first lease to
its last end. `roundtrip_*_ms`: enqueue one job and wait for its result, one after the other. `after_idle_p95_ms`: the
same after a second of silence. `delta_p95_ms`: from a handler's `emit` to a watcher in the other process, with 20 jobs
that emit 25 events a second each. `recovery_s`: a worker with 20 jobs in flight is killed (-9) beside an idle one; the
time until the idle one has run all 20. SQLite is durable (synchronous=FULL); Redis runs with appendonly yes.

Without --quick the same no-op and recovery work is given to other queues on the same Redis (`jobs_peers.py`): minutes,
for some of them take long to find out that a worker died.
"""

# ruff: noqa: ASYNC110 (a benchmark looks from outside: there is no event to wait for)

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from jobs_peers import FOLDER as PEERS
from penstock.jobs import JobStore, open_store
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import JobContext, Worker
from penstock.types import JSON, Job, JobState, NewJob, Priority

IN_FLIGHT = 20
BATCH = 500
TOLD = ("noop_per_s", "roundtrip_p50_ms", "recovery_s")
"""What `--json` gives of each engine; the table has the rest too."""


# --- the worker process ----------------------------------------------------------------------------------------------


async def noop(_: JobContext) -> JSON:
    return None


async def hang(context: JobContext) -> JSON:
    """The first attempt never ends; the second ends at once."""
    if context.attempt == 1:
        await asyncio.Event().wait()


async def talk(context: JobContext) -> JSON:
    for _ in range(50):
        await context.emit("delta", {"at": time.time()})
        await asyncio.sleep(0.04)


async def work(url: str) -> None:
    async with open_store(url) as store:
        worker = Worker(store, {"noop": noop, "hang": hang, "talk": talk})
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


@asynccontextmanager
async def workers(store: JobStore, url: str, count: int = 1) -> AsyncIterator[list["subprocess.Popen[bytes]"]]:
    """Worker processes, ready."""
    before = len(await store.workers())
    processes = [await asyncio.to_thread(start, url) for _ in range(count)]
    try:
        while sum(worker.ready for worker in await store.workers()) < before + count:
            await asyncio.sleep(0.01)
        yield processes
    finally:
        for process in processes:
            process.terminate()
            await asyncio.to_thread(process.wait)


def start(url: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, __file__, "--worker", url])


# --- what is measured ------------------------------------------------------------------------------------------------


async def throughput(store: JobStore, url: str, count: int) -> dict[str, float]:
    jobs: list[Job] = []
    started = time.perf_counter()
    for _ in range(0, count, BATCH):
        new = [NewJob(kind="noop", priority=Priority.INTERACTIVE) for _ in range(BATCH)]
        jobs += [accepted.job for accepted in await store.enqueue(new)]
    enqueued_s = time.perf_counter() - started
    async with workers(store, url):
        last = await store.wait(jobs[-1].id, timeout_s=300)
        while await store.count(JobFilter(states=frozenset({JobState.QUEUED, JobState.RUNNING}))):
            await asyncio.sleep(0.01)
    first = await store.get(jobs[0].id)
    assert first.started_at is not None
    assert last.finished_at is not None
    return {
        "enqueue_per_s": len(jobs) / enqueued_s,
        "noop_per_s": len(jobs) / (last.finished_at - first.started_at),
    }


async def one(store: JobStore) -> float:
    started = time.perf_counter()
    (accepted,) = await store.enqueue([NewJob(kind="noop", priority=Priority.INTERACTIVE)])
    job = await store.wait(accepted.job.id, timeout_s=30)
    assert job.state is JobState.SUCCEEDED
    return (time.perf_counter() - started) * 1000


async def round_trips(store: JobStore, url: str, count: int) -> dict[str, float]:
    async with workers(store, url):
        for _ in range(50):
            await one(store)
        times = [await one(store) for _ in range(count)]
        idle = []
        for _ in range(max(5, count // 100)):
            await asyncio.sleep(1)
            idle.append(await one(store))
        deltas = await delta_latencies(store)
    return {
        "roundtrip_p50_ms": statistics.median(times),
        "roundtrip_p95_ms": statistics.quantiles(times, n=20)[-1],
        "after_idle_p95_ms": statistics.quantiles(idle, n=20)[-1],
        "delta_p95_ms": statistics.quantiles(deltas, n=20)[-1],
    }


async def delta_latencies(store: JobStore) -> list[float]:
    latencies: list[float] = []

    async def watch(job: Job) -> None:
        latencies.extend(
            [(time.time() - event.data["at"]) * 1000 async for event in store.watch(job.id) if event.type == "delta"]
        )

    new = [NewJob(kind="talk", priority=Priority.INTERACTIVE) for _ in range(IN_FLIGHT)]
    async with asyncio.TaskGroup() as group:
        for accepted in await store.enqueue(new):
            group.create_task(watch(accepted.job))
    return latencies


async def recovery(store: JobStore, url: str) -> dict[str, float]:
    async with workers(store, url) as (first,):
        jobs = await store.enqueue([NewJob(kind="hang", priority=Priority.INTERACTIVE) for _ in range(IN_FLIGHT)])
        while await store.count(JobFilter(states=frozenset({JobState.RUNNING}))) < IN_FLIGHT:
            await asyncio.sleep(0.01)
        async with workers(store, url):
            await asyncio.sleep(1)
            first.kill()
            started = time.perf_counter()
            for accepted in jobs:
                assert (await store.wait(accepted.job.id, timeout_s=60)).state is JobState.SUCCEEDED
            return {"recovery_s": time.perf_counter() - started}


async def measure(url: str, *, quick: bool) -> dict[str, float]:
    async with open_store(url) as store:
        figures = await throughput(store, url, 5_000 if quick else 10_000)
        figures |= await round_trips(store, url, 300 if quick else 2_000)
        return figures | await recovery(store, url)


# --- the engines -----------------------------------------------------------------------------------------------------


@contextmanager
def redis_server(folder: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes"]
    process = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    try:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.01)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def run(url: str, *, quick: bool) -> dict[str, float]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(url, quick=quick))


def measure_peers(url: str, folder: Path) -> dict[str, dict[str, float | None]]:
    script = Path(__file__).with_name("jobs_peers.py")
    measured = subprocess.run([sys.executable, script, url, folder], stdout=subprocess.PIPE, check=True)
    figures: dict[str, dict[str, float | None]] = json.loads(measured.stdout)
    return figures


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer jobs; under a minute")
    parser.add_argument("--json", action="store_true", help="one flat object on standard output")
    parser.add_argument("--no-peers", action="store_true", help="leave out the other queues, as --quick does")
    parser.add_argument("--peers", type=Path, default=PEERS, help="where their environments live")
    parser.add_argument("--folder", help="where to keep the files (default: a temporary folder)")
    parser.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(asked.worker))
        return
    if asked.quick:
        print("--quick leaves out the other queues", file=sys.stderr)
    figures: dict[str, float | None] = {}
    peers: dict[str, dict[str, float | None]] = {}
    with TemporaryDirectory(dir=asked.folder) as folder:
        results = {"sqlite": run(f"sqlite:///{Path(folder).absolute()}/jobs.db", quick=asked.quick)}
        if shutil.which("redis-server"):
            with redis_server(folder) as url:
                results["redis"] = run(url, quick=asked.quick)
                peers = {} if asked.quick or asked.no_peers else measure_peers(url, asked.peers.absolute())
        else:
            print("redis-server is not installed: Redis is left out", file=sys.stderr)
    for engine, found in results.items():
        figures |= {f"{engine}.{name}": round(found[name], 3) for name in TOLD}
    for peer, measured in peers.items():
        figures |= {f"peer.{peer}.{name}": value and round(value, 3) for name, value in measured.items()}
    if asked.json:
        print(json.dumps(figures))
        return
    print(f"{'':20}" + "".join(f"{engine:>12}" for engine in results) + f"   ({os.cpu_count()} cores)")
    for name in results["sqlite"]:
        print(f"{name:20}" + "".join(f"{found[name]:12,.2f}" for found in results.values()))
    if peers:
        print(f"\n{'on the same Redis':20}{'noop_per_s':>12}{'recovery_s':>12}")
        ours = {"penstock": dict[str, float | None](results["redis"])}
        for peer, measured in (ours | peers).items():
            print(f"{peer:20}{_figure(measured['noop_per_s']):>12}{_figure(measured['recovery_s']):>12}")


if __name__ == "__main__":
    main()
