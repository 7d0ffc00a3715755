"""A worker process of test jobs: `python -m chaos.job_worker URL EFFECTS`. Every effect is a line in a file that only
grows: `job attempt step time pid`.
"""

import asyncio
import ctypes
import os
import signal
import sys
import time

from penstock.errors import Unavailable
from penstock.jobs import WorkerOptions, open_store
from penstock.jobs.worker import JobContext, Worker
from penstock.types import JSON


class Effects:
    """The file. One `write` a line, so that lines of many processes never mix."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, context: JobContext, step: str) -> None:
        at = time.clock_gettime(time.CLOCK_REALTIME)  # not `time.time`, which a case may have turned
        os.write(self._fd, f"{context.job.id} {context.attempt} {step} {at:.6f} {os.getpid()}\n".encode())


class Kinds:
    """The kinds of test jobs. All take `seconds`, and return the number of the attempt that succeeded."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    async def work(self, context: JobContext) -> JSON:
        self._effects.note(context, "begun")
        await asyncio.sleep(context.job.payload.get("seconds", 0.0))
        self._effects.note(context, "done")
        return context.attempt

    async def flaky(self, context: JobContext) -> JSON:
        """Its first `failures` attempts fail."""
        if len([one for one in context.job.failures if one.code != "worker_died"]) < context.job.payload["failures"]:
            raise Unavailable("what it needs is away for a moment")
        return await self.work(context)

    async def talk(self, context: JobContext) -> JSON:
        """Speaks all the while."""
        self._effects.note(context, "begun")
        for word in range(10):
            await context.emit("delta", {"text": str(word)})
            await context.progress("talk", word, 10)
            await asyncio.sleep(context.job.payload.get("seconds", 0.0) / 10)
        self._effects.note(context, "done")
        return context.attempt

    async def block(self, context: JobContext) -> JSON:
        """Blocks the event loop, which no handler should do."""
        self._effects.note(context, "begun")
        time.sleep(context.job.payload["seconds"])  # noqa: ASYNC251 (that is the point)
        self._effects.note(context, "done")
        return context.attempt

    async def poison(self, context: JobContext) -> JSON:
        """Kills its process."""
        self._effects.note(context, "begun")
        await asyncio.sleep(0.05)
        match context.job.payload["how"]:
            case "segfault":
                ctypes.string_at(0)
            case "oom":
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                os._exit(139)


async def main(url: str, effects: str) -> None:
    kinds = Kinds(Effects(effects))
    handlers = {name: getattr(kinds, name) for name in ("work", "flaky", "talk", "block", "poison")}
    while True:
        try:
            async with open_store(url) as store:
                worker = Worker(store, handlers, WorkerOptions(background=128, grace_s=10))
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
                return await worker.run()
        except Unavailable:  # the store is away while we start: as a service manager would, try again
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
