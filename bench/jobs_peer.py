"""The work of `bench/jobs.py` on another queue; runs in that queue's own virtual environment (see `jobs_peers.py`).

    PEER=rq REDIS_URL=… COUNT=… python jobs_peer.py worker | enqueue noop | enqueue hang

The queue's own defaults, but for: as many jobs at once as Penstock's worker would take where it can; late
acknowledgement where that is a choice (else nothing could recover); a time limit of 60 s an attempt; three attempts.
"""

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

import redis

PEER = os.environ.get("PEER", "")
URL = os.environ.get("REDIS_URL", "redis://localhost")
COUNT = int(os.environ.get("COUNT", "0"))
CONCURRENCY = 64
LIMIT_S = 60
TRIES = 3

marks = redis.Redis.from_url(URL)
calls = itertools.count(1)


def count() -> None:
    """Note when the first and when the last job ran. A process that is forked for each job counts in Redis."""
    number = marks.incr("bench:calls") if PEER == "rq" else next(calls)
    if number == 1:
        marks.set("bench:first", time.time())
    if number == COUNT:
        marks.set("bench:last", time.time())


def again(number: int) -> bool:
    """Whether an attempt was made before; the second one is noted."""
    if marks.incr(f"bench:attempts:{number}") == 1:
        marks.incr("bench:begun")
        return False
    marks.sadd("bench:recovered", number)
    return True


def noop_now() -> None:
    count()


def hang_now(number: int) -> None:
    if not again(number):
        time.sleep(3600)


async def noop(*_: Any) -> None:
    count()


async def hang(*arguments: Any, **named: Any) -> None:
    """Some queues hand over a context before the number, one by name."""
    if not again(named.get("number", arguments[-1] if arguments else 0)):
        await asyncio.sleep(3600)


# Each peer: how to enqueue one job (`None` for no-op, else the number of a hanging one), and its worker.


def use_rq() -> tuple[Callable[[int | None], Any], Callable[[], None]]:
    rq: Any = import_module("rq")
    queue = rq.Queue(connection=marks, default_timeout=LIMIT_S)

    def enqueue(number: int | None) -> None:
        function, arguments = ("jobs_peer.noop_now", ()) if number is None else ("jobs_peer.hang_now", (number,))
        queue.enqueue(function, *arguments, retry=rq.Retry(max=TRIES))

    def work() -> None:
        if COUNT:
            rq.Worker([queue], connection=marks).work(logging_level="ERROR")
        else:
            pool: Any = import_module("rq.worker_pool")
            pool.WorkerPool([queue], connection=marks, num_workers=20).start(logging_level="ERROR")

    return enqueue, work


def use_celery() -> tuple[Callable[[int | None], Any], Callable[[], None]]:
    app: Any = import_module("celery").Celery("peer", broker=URL)
    app.conf.update(task_acks_late=True, task_ignore_result=True, task_reject_on_worker_lost=True)
    noop_task = app.task(noop_now, name="noop")
    hang_task = app.task(hang_now, name="hang")

    def work() -> None:
        app.worker_main(["worker", "--pool=threads", f"-c{CONCURRENCY}", "--loglevel=ERROR", "-n", f"{os.getpid()}@%h"])

    return lambda number: noop_task.delay() if number is None else hang_task.delay(number), work


def use_saq() -> tuple[Callable[[int | None], Awaitable[Any]], Callable[[], None]]:
    saq: Any = import_module("saq")
    queue = saq.Queue.from_url(URL)

    async def enqueue(number: int | None) -> None:
        call = {} if number is None else {"number": number, "timeout": LIMIT_S, "retries": TRIES}
        await queue.enqueue("noop" if number is None else "hang", **call)

    def work() -> None:
        asyncio.run(saq.Worker(queue, functions=[noop, hang], concurrency=CONCURRENCY).start())

    return enqueue, work


def use_arq() -> tuple[Callable[[int | None], Awaitable[Any]], Callable[[], None]]:
    arq: Any = import_module("arq")
    settings = import_module("arq.connections").RedisSettings.from_dsn(URL)
    pools: list[Any] = []

    async def enqueue(number: int | None) -> None:
        if not pools:
            pools.append(await arq.create_pool(settings))
        await (pools[0].enqueue_job("noop") if number is None else pools[0].enqueue_job("hang", number))

    def work() -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        arq.Worker(
            [noop, hang], redis_settings=settings, max_jobs=CONCURRENCY, job_timeout=LIMIT_S, max_tries=TRIES
        ).run()

    return enqueue, work


def use_taskiq() -> tuple[Callable[[int | None], Awaitable[Any]], Callable[[], None]]:
    global broker  # noqa: PLW0603 (its command line finds the broker by name)
    broker = import_module("taskiq_redis").RedisStreamBroker(url=URL)
    noop_task, hang_task = broker.task(task_name="noop")(noop), broker.task(task_name="hang")(hang)
    started: list[Any] = []

    async def enqueue(number: int | None) -> None:
        if not started:
            started.append(await broker.startup())
        await (noop_task.kiq() if number is None else hang_task.kiq(number))

    def work() -> None:
        command = ["taskiq", "worker", "jobs_peer:broker", "--workers", "1", "--max-async-tasks", str(CONCURRENCY)]
        subprocess.run([sys.executable, "-m", *command, "--log-level", "ERROR"], check=True)

    return enqueue, work


def use_streaq() -> tuple[Callable[[int | None], Awaitable[Any]], Callable[[], None]]:
    worker: Any = import_module("streaq").Worker(redis_url=URL, concurrency=CONCURRENCY)

    @worker.task(max_tries=TRIES)  # type: ignore[untyped-decorator, unused-ignore]
    async def streaq_noop() -> None:
        count()

    @worker.task(max_tries=TRIES, timeout=LIMIT_S)  # type: ignore[untyped-decorator, unused-ignore]
    async def streaq_hang(number: int) -> None:
        await hang(number)

    async def enqueue(number: int | None) -> None:
        await (streaq_noop.enqueue() if number is None else streaq_hang.enqueue(number))

    def work() -> None:
        worker.run_sync()

    enqueue.worker = worker  # type: ignore[attr-defined]
    return enqueue, work


broker: Any = None
PEERS: dict[str, Callable[[], tuple[Callable[[int | None], Any], Callable[[], None]]]] = {
    "rq": use_rq,
    "celery": use_celery,
    "saq": use_saq,
    "arq": use_arq,
    "taskiq": use_taskiq,
    "streaq": use_streaq,
}


async def enqueue_all(enqueue: Callable[[int | None], Any], numbers: list[int | None]) -> None:
    async def each() -> None:
        for number in numbers:
            answer = enqueue(number)
            if asyncio.iscoroutine(answer):
                await answer

    worker = getattr(enqueue, "worker", None)
    if worker is None:
        await each()
    else:
        async with worker:
            await each()


if PEER:
    enqueue_one, run_worker = PEERS[PEER]()

if __name__ == "__main__":
    if sys.argv[1] == "worker":
        run_worker()
    else:
        asyncio.run(enqueue_all(enqueue_one, [None] * COUNT if sys.argv[2] == "noop" else list(range(20))))
