"""The Redis engine: each verb is one script, one round trip; the state machine is in the scripts."""

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec
from redis import Redis as BlockingRedis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from penstock.errors import ConfigError, Conflict
from penstock.jobs import histogram
from penstock.jobs.admission import overloaded
from penstock.jobs.base import JobStore
from penstock.jobs.clock import Clock
from penstock.jobs.drafts import Draft, Ending, Entry, new_job
from penstock.jobs.options import JobsOptions, Limit
from penstock.jobs.records import Beat, Enqueued, JobFilter, QueueStats
from penstock.jobs.redis import wire
from penstock.jobs.redis.health import inspect
from penstock.jobs.redis.link import TIMEOUT_S, Link, Listener, client, explain
from penstock.jobs.redis.scripts import load_scripts
from penstock.types import Job, JobEvent, Priority, WorkerInfo

logger = logging.getLogger(__name__)

_SEEN_S = 10.0
_SCAN = 2_000


class RedisStore(JobStore):
    """`redis://[[user]:password@]host[:port][/db][?prefix=name]`, `rediss://` with TLS; Redis 6.2 or newer.

    Leases are timed by the server's clock. `durable` and `warnings` tell what the server is set up for: with
    `appendfsync everysec`, the usual setting, a crash of its machine may lose the last second.
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
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        prefix = query.pop("prefix", ["penstock"])[0]
        if not prefix.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"the prefix of the keys in Redis is letters, digits, '-' and '_'; not {prefix!r}")
        rest = "&".join(f"{name}={value}" for name, values in query.items() for value in values)
        self._url = urlunsplit(parts._replace(query=rest))
        self._where = f"{parts.hostname}:{parts.port or 6379}"
        self._prefix = f"{{{prefix}}}:"
        self._clock = clock
        self._scripts = load_scripts()
        self._settings = wire.settings(self.options)
        self._limits = wire.limits(self.options)
        self._warnings: Sequence[str] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    async def _open(self) -> None:
        self._client = client(self._url)
        self._blocking = BlockingRedis.from_url(
            self._url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        try:
            self.durable, self._warnings = await inspect(self._client, self._where)
        except BaseException:
            await self._client.aclose()
            raise
        for warning in self._warnings:
            logger.warning("%s", warning)
        self._link = Link(self._client, self._prefix, self._where)
        self._listener = Listener(self._client, self._hear, self.wakeups.missed)
        self.wakeups.begun = self._begun

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._listener.close()
        await self._link.close()
        await self._client.aclose()
        self._blocking.close()

    def warnings(self) -> Sequence[str]:
        return self._warnings

    async def _run(self, name: str, *arguments: Any) -> Any:
        return await self._link.call(self._scripts[name], self._now(), self._settings, *arguments)

    def _now(self) -> str:
        return "" if self._clock is None else f"{self._clock.wall():.6f}"

    # --- wake-ups ----------------------------------------------------------------------------------------------

    def _begun(self) -> None:
        if self.wakeups.doorbells:
            self._listener.want(f"{self._prefix}wake")
        if self.wakeups.inboxes:
            self._listener.want(f"{self._prefix}events")

    def _hear(self, channel: bytes, data: bytes) -> None:
        if channel.endswith(b"events"):
            for job_id, event in wire.pushed(data):
                self.wakeups.event(job_id, event)
        elif data.startswith(b"r"):
            self.wakeups.ready()
        elif data.startswith(b"c"):
            self.wakeups.cancelled([data[1:].decode()])
        elif data.startswith(b"d"):
            self._ring_in(float(data[1:]))

    def _ring_in(self, delay_s: float) -> None:
        """Ring when the next delayed job is due (the earliest call counts)."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, delay_s) + 0.001
        if self._timer is None or self._timer_at > at or self._timer_at < loop.time():
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = loop.call_at(at, self.wakeups.ready), at

    # --- verbs -------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await self._run("ping")

    async def _enqueue(self, drafts: Sequence[Draft]) -> Sequence[Enqueued]:
        status, *rest = await self._run("enqueue", wire.drafts(drafts), self._limits)
        if status == b"conflict":
            draft = drafts[rest[0]]
            what = f"the id {draft.id!r}" if draft.key is None else f"the idempotency key {draft.key!r}"
            raise Conflict(f"{what} was used before for a job with another payload", code="idempotency_conflict")
        if status == b"overloaded":
            priority, whole, jobs, size_bytes, drained = rest
            name = Priority(priority.decode())
            limits: Mapping[Priority, Limit] = self.options.limits if whole else self.options.tenant_limits
            whose = f"{name} jobs" if whole else f"this tenant's {name} jobs"
            raise overloaded(whose, jobs, size_bytes, limits[name], drained / histogram.DRAIN_S)
        now = float(rest[0])
        return [
            Enqueued(job=new_job(draft, draft.run_at or now, now), created=True, position=answer[2])
            if answer[1]
            else Enqueued(job=wire.job(answer[3]), created=False)
            for draft, answer in zip(drafts, rest[1], strict=True)
        ]

    async def _get(self, job_id: str) -> Job | None:
        fields = await self._run("get", job_id)
        return wire.job(fields) if fields[0] is not None else None

    async def _list(self, where: JobFilter, before: int | None, limit: int) -> Sequence[tuple[int, Job]]:
        found: list[tuple[int, Job]] = []
        below: bytes | str = "" if before is None else str(before)
        while len(found) < limit:
            _, below, rows = await self._run("scan", wire.where(where), below, limit - len(found), _SCAN)
            found += [(int(fields[0]), wire.job(fields)) for fields in rows]
            if not below:
                break
        return found

    async def count(self, where: JobFilter) -> int:
        total = 0
        below: bytes | str = ""
        while True:
            more, below, _ = await self._run("scan", wire.where(where), below, 0, _SCAN)
            total += int(more)
            if not below:
                return total

    async def events(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
        return wire.events(await self._run("events", job_id, after, limit))

    async def stats(self) -> Sequence[QueueStats]:
        return wire.stats(await self._run("stats"))

    async def _cancel(self, job_ids: Sequence[str]) -> int:
        return int(await self._run("cancel", wire.pack(list(job_ids))))

    async def _retry(self, job_ids: Sequence[str]) -> int:
        return int(await self._run("retry", wire.pack(list(job_ids))))

    async def _lease(self, worker_id: str, kinds: Sequence[str], n: int, background: int) -> Sequence[Job]:
        phase = self._rng.randrange(self.options.aged_every)
        next_due, rows = await self._run("lease", worker_id, n, background, phase, *kinds)
        if next_due:
            self._ring_in(float(next_due))
        return [wire.job(fields) for fields in rows]

    def beat(self, worker_id: str, leases: Mapping[str, int]) -> Beat:
        script = self._scripts["beat"]
        arguments = (1, self._prefix, self._now(), self._settings, worker_id, wire.pack(list(leases.items())))
        try:
            try:
                lost, cancelled = self._blocking.evalsha(script.sha, *arguments)
            except NoScriptError:
                lost, cancelled = self._blocking.eval(script.text, *arguments)
        except (RedisError, OSError) as exc:
            raise explain(exc, self._where) from exc
        return Beat(lost=wire.ids(lost), cancelled=wire.ids(cancelled))

    async def _append(self, entries: Sequence[Entry]) -> frozenset[str]:
        return wire.ids(await self._run("append", wire.entries(entries)))

    async def _finish(self, endings: Sequence[Ending]) -> frozenset[str]:
        return wire.ids(await self._run("finish", wire.endings(endings)))

    async def _hand_back(self, worker_id: str, died: bool) -> int:
        return int(await self._run("hand_back", worker_id, int(died)))

    async def expire(self) -> int:
        return int(await self._run("expire"))

    async def register(self, worker: WorkerInfo) -> None:
        await self._run("register", worker.id, msgspec.json.encode(worker), _SEEN_S)

    async def unregister(self, worker_id: str) -> None:
        await self._run("register", worker_id, "", _SEEN_S)

    async def workers(self) -> Sequence[WorkerInfo]:
        return wire.workers(await self._run("workers", _SEEN_S))
