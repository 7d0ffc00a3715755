"""The SQLite engine: writes go to the one writer thread, reads to a few reader threads, news come from the poller."""
# ruff: noqa: S608 (statements are put together from our own constants; values are always bound)

import asyncio
import random
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from penstock.errors import ConfigError
from penstock.jobs.base import JobStore
from penstock.jobs.clock import Clock
from penstock.jobs.drafts import Draft, Ending, Entry
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import Beat, Enqueued, JobFilter, QueueStats
from penstock.jobs.rules import Rules
from penstock.jobs.sqlite import leasing, measures, operations, rows, schema, submit
from penstock.jobs.sqlite.poller import Poller
from penstock.jobs.sqlite.writer import Writer
from penstock.types import Job, JobEvent, WorkerInfo

T = TypeVar("T")

_READERS = 2
_SEEN_S = 10.0
_EVENTS = """SELECT json_group_array(json_object('seq', seq, 'type', type, 'data', json(data), 'attempt', attempt,
    'at', at)) FROM (SELECT * FROM event WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?)"""
_WORKERS = "SELECT json_group_array(json(info)) FROM (SELECT info FROM worker WHERE seen BETWEEN ? AND ? ORDER BY id)"
_REGISTER = """INSERT INTO worker VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET info = excluded.info, seen = excluded.seen"""


class SqliteStore(JobStore):
    """`sqlite:///file` shared by the processes of one machine; `memory://` is a file of its own that dies with it.

    Leases are timed by the machine's monotonic clock, so a jump of the wall clock neither ends nor prolongs one.
    A process stopped (SIGSTOP) in the very middle of a write transaction holds up the others until it goes on or dies.
    """

    def __init__(
        self,
        url: str,
        options: JobsOptions | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(options, rng=rng)
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite" and len(rest) < 2:
            raise ConfigError("a job store in SQLite needs a file: sqlite:///relative.db or sqlite:////absolute.db")
        self.durable = scheme == "sqlite"
        self._path = rest[1:]
        self._clock = clock or Clock()
        self._rules = Rules(self.options)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def _open(self) -> None:
        if not self.durable:
            self._folder = tempfile.TemporaryDirectory(prefix="penstock-jobs-")
            self._path = f"{self._folder.name}/jobs.db"
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="jobs-reader")
        try:
            cx = await asyncio.get_running_loop().run_in_executor(self._readers, schema.prepare, self._path)
        except BaseException:
            self._readers.shutdown(wait=False)
            raise
        self._poller = Poller(schema.connect(self._path), self.wakeups, self._clock)
        self.wakeups.begun = self._poller.attend
        self._writer = Writer(cx, self._path, self._poller.kick, sync=self.durable)

    async def _close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._readers, self._shut)
        self._readers.shutdown()
        for cx in self._connections:
            cx.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _shut(self) -> None:
        self._poller.close()
        self._writer.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_here, work)

    def _read_here(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with schema.explained(self._path):
            cx: sqlite3.Connection | None = getattr(self._local, "cx", None)
            if cx is None:
                cx = self._local.cx = schema.connect(self._path)
                self._connections.append(cx)
            return work(cx)

    # --- reads -------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await self._read(lambda cx: cx.execute("SELECT 1 FROM lane LIMIT 1").fetchone())

    async def _get(self, job_id: str) -> Job | None:
        found = await self._read(lambda cx: rows.jobs(cx, "id = ?", (job_id,)))
        return found[0][1] if found else None

    async def _list(self, where: JobFilter, before: int | None, limit: int) -> Sequence[tuple[int, Job]]:
        condition, arguments = rows.condition(where)
        if before is not None:
            condition, arguments = f"{condition} AND n < ?", [*arguments, before]
        found = await self._read(lambda cx: rows.jobs(cx, f"{condition} ORDER BY n DESC LIMIT ?", [*arguments, limit]))
        return sorted(found, key=lambda each: -each[0])

    async def count(self, where: JobFilter) -> int:
        condition, arguments = rows.condition(where)
        text = f"SELECT count(*) FROM job WHERE {condition}"
        found: int = await self._read(lambda cx: cx.execute(text, arguments).fetchone()[0])
        return found

    async def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
        return await self._read(lambda cx: rows.read(cx, _EVENTS, (job_id, after, limit), list[JobEvent]))

    async def stats(self) -> Sequence[QueueStats]:
        return await self._read(lambda cx: measures.stats(cx, self._clock.wall()))

    async def workers(self) -> Sequence[WorkerInfo]:
        return await self._read(
            lambda cx: rows.read(
                cx,
                _WORKERS,
                self._seen_bounds(),
                list[WorkerInfo],
            )
        )

    # --- writes ------------------------------------------------------------------------------------------------

    async def _enqueue(self, drafts: Sequence[Draft]) -> Sequence[Enqueued]:
        return await self._writer.run(lambda cx: submit.enqueue(cx, drafts, self.options, self._clock.wall()))

    async def _cancel(self, job_ids: Sequence[str]) -> int:
        return await self._writer.run(lambda cx: operations.cancel(cx, job_ids, self._rules, self._clock.wall()))

    async def _retry(self, job_ids: Sequence[str]) -> int:
        return await self._writer.run(lambda cx: operations.retry(cx, job_ids, self._rules, self._clock.wall()))

    async def _lease(self, worker_id: str, kinds: Sequence[str], n: int, background: int) -> Sequence[Job]:
        ask = leasing.Ask(worker_id, kinds, n, background, self._rng.randrange(self.options.aged_every))
        return await self._writer.run(
            lambda cx: leasing.lease(cx, ask, self.options, self._rules, self._clock.wall(), self._lease_until()),
            durable=False,
        )

    def beat(self, worker_id: str, leases: Mapping[str, int]) -> Beat:
        return self._writer.run_blocking(lambda cx: operations.beat(cx, worker_id, leases, self._lease_until()))

    async def _append(self, entries: Sequence[Entry]) -> frozenset[str]:
        return await self._writer.run(
            lambda cx: operations.append(cx, entries, self.options, self._clock.wall()), durable=False
        )

    async def _finish(self, endings: Sequence[Ending]) -> frozenset[str]:
        return await self._writer.run(lambda cx: operations.finish(cx, endings, self._rules, self._clock.wall()))

    async def _hand_back(self, worker_id: str, died: bool) -> int:
        return await self._writer.run(
            lambda cx: operations.hand_back(cx, worker_id, died, self._rules, self._clock.wall())
        )

    async def expire(self) -> int:
        if await self._read(lambda cx: operations.is_tidy(cx, self.options, self._clock.wall(), self._clock.steady())):
            return 0
        return await self._writer.run(
            lambda cx: operations.expire(cx, self.options, self._rules, self._clock.wall(), self._clock.steady())
        )

    async def register(self, worker: WorkerInfo) -> None:
        row = (worker.id, rows.encode(replace(worker, seen_at=self._clock.wall())), self._clock.steady())
        await self._writer.run(lambda cx: _register(cx, row, self._seen_bounds()), durable=False)

    async def unregister(self, worker_id: str) -> None:
        await self._writer.run(lambda cx: _unregister(cx, worker_id), durable=False)

    def _lease_until(self) -> float:
        return self._clock.steady() + self.options.lease_s

    def _seen_bounds(self) -> tuple[float, float]:
        """A time ahead of the steady clock is from before the machine was started anew."""
        steady = self._clock.steady()
        return steady - _SEEN_S, steady + _SEEN_S


def _register(cx: sqlite3.Connection, row: tuple[str, str, float], bounds: tuple[float, float]) -> None:
    cx.execute(_REGISTER, row)
    cx.execute("DELETE FROM worker WHERE seen NOT BETWEEN ? AND ?", bounds)


def _unregister(cx: sqlite3.Connection, worker_id: str) -> None:
    cx.execute("DELETE FROM worker WHERE id = ?", (worker_id,))
