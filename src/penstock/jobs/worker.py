"""The worker loop: leases what it has room for, runs handlers as tasks, reports what becomes of them."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from penstock.errors import PenstockError
from penstock.ids import new_id
from penstock.jobs.base import JobStore
from penstock.jobs.context import Attempt, Handler, JobContext, Reason
from penstock.jobs.heartbeat import Heartbeat
from penstock.jobs.metrics import ENDED, LEASED, LOST, RUN, RUNNING, WAIT
from penstock.jobs.neighbours import is_dead, machine_id
from penstock.jobs.options import WorkerOptions
from penstock.jobs.records import Beat, Outcome
from penstock.jobs.reporter import Reporter
from penstock.jobs.wakeups import Doorbell
from penstock.types import Failure, Job, LoadedModel, WorkerInfo

__all__ = ["Handler", "JobContext", "Worker"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0  # a lost ring delays a job by no more
_REGISTER_S = 2.0
_UNWIND_S = 5.0
_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


class Worker:
    """Runs jobs of the kinds it has handlers for until `stop` is called.

    `warm` is awaited before the first lease (load models there) and returns the names of what it loaded; meanwhile
    the registry shows the worker as not ready. What it raises, `run` raises, and nothing was leased. `loaded` tells the
    registry which models are open.
    """

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[str, Handler],
        options: WorkerOptions | None = None,
        *,
        worker_id: str | None = None,
        warm: Callable[[], Awaitable[Sequence[str]]] | None = None,
        loaded: Callable[[], Sequence[LoadedModel]] = tuple,
    ) -> None:
        self.id = worker_id or new_id("wrk")
        self.ready = False
        self._store = store
        self._handlers = handlers
        self._options = options or WorkerOptions()
        self._warm = warm
        self._loaded = loaded
        self._models: Sequence[str] = ()
        self._started_at = time.time()
        self._machine = machine_id()
        self._running: set[Attempt] = set()
        self._leases: dict[str, int] = {}
        self._background = 0
        self._limited = False
        self._idle = asyncio.Event()
        self._stopping = asyncio.Event()
        self._bell = Doorbell()

    def stop(self) -> None:
        """Stop leasing now; `run` returns once the jobs in flight are done or handed back (at most `grace_s`)."""
        self.ready = False
        self._stopping.set()
        self._bell.rung.set()

    async def run(self) -> None:
        """Returns after `stop`. Raises what `warm` raises."""
        failure: BaseException | None = None
        async with asyncio.TaskGroup() as helpers:
            tasks = [helpers.create_task(self._keep_registered())]
            try:
                await self._warm_up()
                self._reporter = Reporter(self._store, self._options.flush_s, self._lose, self._close)
                tasks += [helpers.create_task(self._reporter.run()), helpers.create_task(self._sweep())]
                await self._work()
            except Exception as exc:  # raised below, outside of the group that would wrap it
                failure = exc
            finally:
                for task in tasks:
                    task.cancel()
        with suppress(PenstockError):
            await self._store.unregister(self.id)
        if failure is not None:
            raise failure

    async def _warm_up(self) -> None:
        """Warm, unless `stop` is called first."""
        if self._warm is None:
            return
        warming = asyncio.ensure_future(self._warm())
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({warming, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            warming.cancel()
        with suppress(asyncio.CancelledError):
            self._models = await warming

    async def _work(self) -> None:
        heartbeat = Heartbeat(
            self._store,
            self.id,
            self._leases,
            self._hear,
            interval_s=min(self._options.heartbeat_s, self._store.options.lease_s / 3),
            stall_s=self._options.stall_s,
        )
        with heartbeat, self._store.doorbell() as self._bell:
            self.ready = not self._stopping.is_set()
            await self._register()
            async with asyncio.TaskGroup() as group:
                await self._lease_on(group)
                await self._drain()

    async def _lease_on(self, group: asyncio.TaskGroup) -> None:
        """Lease and start jobs until `stop`."""
        failed = 0
        while not self._stopping.is_set():
            self._bell.rung.clear()
            self._cancel_asked()
            pause = _LOOK_AGAIN_S
            try:
                await self._fill(group)
                failed = 0
            except PenstockError as exc:
                logger.warning("no jobs could be leased (%s); trying again", exc)
                pause = _PAUSES_S[min(failed, len(_PAUSES_S) - 1)]
                failed += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._bell.rung.wait()

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Lease what there is room for. Where the room is the limit, an attempt that closes rings the bell."""
        room = self._options.concurrency - len(self._running)
        if room > 0:
            background = self._options.background - self._background
            jobs = await self._store.lease(self.id, kinds=self._handlers.keys(), n=room, background=background)
            for job in jobs:
                self._start(job, group)
            room -= len(jobs)
        self._limited = room <= 0 or self._background >= self._options.background

    def _start(self, job: Job, group: asyncio.TaskGroup) -> None:
        if job.id in self._leases:  # lost and leased again before a heartbeat could tell
            self._hear(Beat(lost=frozenset({job.id})))
        attempt = Attempt(job, asyncio.get_running_loop().time())
        self._running.add(attempt)
        self._leases[job.id] = job.attempt
        self._background += attempt.background
        LEASED.labels(job.kind, job.priority).inc()
        WAIT.labels(job.kind, job.priority).observe(max(0.0, (job.started_at or job.run_at) - job.run_at))
        RUNNING.labels(job.priority).inc()
        attempt.task = group.create_task(self._run(attempt))
        attempt.task.add_done_callback(lambda task: self._done(attempt, task))

    async def _run(self, attempt: Attempt) -> Outcome:
        job = attempt.job
        try:
            async with asyncio.timeout(job.time_limit_s) as limit:
                return Outcome(result=await self._handlers[job.kind](JobContext(attempt, self._reporter)))
        except PenstockError as exc:
            return _failed(attempt, exc.code, exc.message, retry=exc.retryable)
        except Exception as exc:
            if limit.expired():
                return _failed(
                    attempt, "time_limit", f"the attempt took longer than {job.time_limit_s:g} s", retry=True
                )
            logger.exception("job %s (%s), attempt %d failed", job.id, job.kind, job.attempt)
            return _failed(attempt, "internal", f"{type(exc).__name__}: {exc}", retry=True)

    def _done(self, attempt: Attempt, task: asyncio.Task[Outcome]) -> None:
        """Have the outcome written; without the lease, or when stopping, there is none."""
        attempt.ended = True
        job = attempt.job
        RUN.labels(job.kind, job.priority).observe(asyncio.get_running_loop().time() - attempt.begun)
        if not task.cancelled():
            if task.exception() is None and attempt.reason is not Reason.LEASE_LOST:
                self._end(attempt, task.result())
                return
        elif attempt.reason is Reason.CANCEL_REQUESTED:
            self._end(attempt, Outcome(cancelled=True))
            return
        elif attempt.reason is None:
            self._end(attempt, _failed(attempt, "internal", "the handler was cancelled from inside", retry=True))
            return
        self._close([attempt])

    def _end(self, attempt: Attempt, outcome: Outcome) -> None:
        how = "cancelled" if outcome.cancelled else "succeeded" if outcome.failure is None else "failed"
        ENDED.labels(attempt.job.kind, attempt.job.priority, how).inc()
        self._reporter.end(attempt, outcome)

    def _close(self, attempts: Iterable[Attempt]) -> None:
        """The attempts are over and written, as far as they will ever be."""
        for attempt in attempts:
            self._running.discard(attempt)
            self._background -= attempt.background
            RUNNING.labels(attempt.job.priority).dec()
            self._release(attempt)
        if self._limited:
            self._bell.rung.set()
        if not self._running and self._stopping.is_set():
            self._idle.set()

    def _release(self, attempt: Attempt) -> None:
        if self._leases.get(attempt.job.id) == attempt.job.attempt:
            del self._leases[attempt.job.id]

    def _lose(self, attempt: Attempt) -> None:
        if not attempt.ended and attempt.reason is not Reason.LEASE_LOST:
            LOST.labels(attempt.job.kind).inc()
            self._release(attempt)
            attempt.cancel(Reason.LEASE_LOST)

    def _hear(self, beat: Beat) -> None:
        for attempt in list(self._running):
            if attempt.job.id in beat.lost:
                self._lose(attempt)
            elif attempt.job.id in beat.cancelled:
                attempt.cancel(Reason.CANCEL_REQUESTED)

    def _cancel_asked(self) -> None:
        asked = set(self._bell.cancels)
        self._bell.cancels.clear()
        for attempt in self._running:
            if attempt.job.id in asked:
                attempt.cancel(Reason.CANCEL_REQUESTED)

    async def _drain(self) -> None:
        """Let the jobs in flight finish; what is left after the grace is cancelled and handed back."""
        if not self._running:
            return
        for grace_s in (self._options.grace_s, _UNWIND_S):
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
                    break
            for attempt in self._running:
                attempt.cancel(Reason.STOPPING)
        with suppress(PenstockError):
            if handed := await self._store.hand_back(self.id):
                logger.info("%d jobs were handed back", handed)

    async def _keep_registered(self) -> None:
        while True:
            await self._register()
            await asyncio.sleep(_REGISTER_S)

    async def _register(self) -> None:
        with suppress(PenstockError):
            await self._store.register(self._info())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._options.sweep_s)
            try:
                await self._bury()
                while await self._store.expire():
                    pass
            except PenstockError as exc:
                logger.warning("lost leases and old records could not be looked for (%s)", exc)

    async def _bury(self) -> None:
        """Take over from workers of this machine that are dead: nobody need wait for their leases to run out."""
        for worker in await self._store.workers() if self._machine else ():
            if worker.machine == self._machine and worker.id != self.id and is_dead(worker.pid):
                handed = await self._store.hand_back(worker.id, died=True)
                await self._store.unregister(worker.id)
                logger.warning("worker %s (process %d) is dead; %d jobs were taken back", worker.id, worker.pid, handed)

    def _info(self) -> WorkerInfo:
        return WorkerInfo(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            kinds=sorted(self._handlers),
            concurrency=self._options.concurrency,
            ready=self.ready,
            running=len(self._running),
            models=self._models,
            loaded=self._loaded(),
            rss_bytes=_rss_bytes(),
            started_at=self._started_at,
            machine=self._machine,
        )


def _failed(attempt: Attempt, code: str, message: str, *, retry: bool) -> Outcome:
    return Outcome(failure=Failure(code=code, message=message, attempt=attempt.job.attempt), retry=retry)


def _rss_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
