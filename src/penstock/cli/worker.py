"""`penstock worker`: one worker process."""

from typing import Annotated

import typer

from penstock.app.lifeline import StopSignal
from penstock.app.worker import run_worker
from penstock.cli.process import DataDir, Supervised, exit_on_error, ready, run, start
from penstock.ids import new_id


def worker(
    data_dir: DataDir = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs in flight at once.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Only these kinds of jobs: ingest,search,question,reindex.")] = None,
    worker_id: Annotated[str | None, typer.Option("--id", hidden=True)] = None,
    supervised: Supervised = False,
) -> None:
    """Run one worker process: loads and warms the models, then answers questions and ingests documents."""
    settings = start({"data_dir": data_dir, "worker": {"concurrency": concurrency}})
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
