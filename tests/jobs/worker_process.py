"""A worker process: `python worker_process.py URL LEDGER [LEASE_S]`. Every attempt leaves lines in the ledger.

A job's payload may say how many `seconds` it takes, and which attempt is `stuck` for ever.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from penstock.jobs import JobsOptions, WorkerOptions, open_store
from penstock.jobs.worker import JobContext, Worker
from penstock.types import JSON


async def main(url: str, ledger: str, lease_s: str = "1.0") -> None:
    def note(context: JobContext, what: str) -> None:
        line = f"{context.job.id} {context.attempt} {what}\n"
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(line)

    async def work(context: JobContext) -> JSON:
        note(context, "begun")
        if context.job.payload.get("stuck") == context.attempt:
            await asyncio.Event().wait()
        await asyncio.sleep(context.job.payload.get("seconds", 0))
        note(context, "done")
        return context.attempt

    async def poison(context: JobContext) -> JSON:
        note(context, "begun")
        await asyncio.sleep(0.05)
        os._exit(139)

    async with open_store(url, JobsOptions(lease_s=float(lease_s))) as store:
        options = WorkerOptions(background=100, sweep_s=0.1, grace_s=10)
        worker = Worker(store, {"work": work, "poison": poison}, options)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
