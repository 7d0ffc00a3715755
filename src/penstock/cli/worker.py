"""`penstock worker`: one worker process."""

from typing import Annotated

import typer

from penstock.app import garbage
from penstock.app.lifeline import StopSignal, wait_for_turn
from penstock.app.worker import prepare, run_worker
from penstock.cli.process import DataDir, Supervised, exit_on_error, ready, run, start
from penstock.ids import new_id


def worker(
    data_dir: DataDir = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs in flight at once.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Only these kinds of jobs: ingest,search,question,reindex.")] = None,
    worker_id: Annotated[str | None, typer.Option("--id", hidden=True)] = None,
    supervised: Supervised = False,
    standby: Annotated[bool, typer.Option(hidden=True, help="Import all, then wait for our turn.")] = False,
) -> None:
    """Run one worker process: loads and warms the models, then answers questions and ingests documents."""
    garbage.rest()
    flags = {"data_dir": data_dir, "worker": {"concurrency": concurrency}}
    settings = start(flags)
    if standby:
        with exit_on_error():
            prepare(settings)
        garbage.settle()
        if not wait_for_turn():
            return
        settings = start(flags)  # as they are now
    stop = StopSignal(supervised=supervised)
    with exit_on_error():
        run(
            run_worker(
                settings,
                worker_id=worker_id or new_id("wrk"),
                kinds=frozenset(kinds.split(",")) if kinds else None,
                stop=stop,
                started=lambda: ready(supervised=supervised),
            )
        )
