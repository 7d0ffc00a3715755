"""`penstock reindex`: works on the stores of the settings, and has a worker do it."""

import asyncio
from typing import Annotated

import typer

from penstock.app import open_services
from penstock.cli.output import Json, count, exit_codes, print_json, say
from penstock.cli.process import DataDir, given
from penstock.client.problems import failure_error
from penstock.errors import Unavailable
from penstock.pipeline.requests import Kind, ReindexRequest, encode
from penstock.settings import load_settings
from penstock.types import DEFAULT_TENANT, Job, JobState, NewJob, Priority

ATTEMPTS = 3
LOOK_S = 2.0


def reindex(
    collection: Annotated[str, typer.Argument(help="The collection's name.")],
    tenant: Annotated[str, typer.Option(help="Whose collection.")] = DEFAULT_TENANT,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Rebuild a collection's index from the ledger: after its index was lost or damaged, or its model was changed.

    A running worker does it (`penstock serve`). Meanwhile the collection is searched as far as it is rebuilt.
    """
    with exit_codes(as_json=as_json):
        job = asyncio.run(_reindex(data_dir, tenant, collection))
        if job.state is not JobState.SUCCEEDED:
            raise failure_error(job.error, f"The reindex of {collection!r}")
        if as_json:
            print_json({"collection": collection, "job_id": job.id, "chunks": job.result["chunks"]})
        else:
            typer.echo(f"Rebuilt {collection!r}: {count(job.result['chunks'], 'chunk')}.")


async def _reindex(data_dir: DataDir, tenant: str, name: str) -> Job:
    settings = load_settings(given({"data_dir": data_dir}))
    async with open_services(settings) as services:
        await services.ledger.get_collection(tenant, name)
        if not any(worker.ready for worker in await services.jobs.workers()):
            raise Unavailable("No worker is ready to do this. Start one with `penstock serve` or `penstock worker`.")
        job = NewJob(
            kind=Kind.REINDEX,
            payload=encode(ReindexRequest(collection=name)),
            tenant=tenant,
            priority=Priority.NORMAL,
            max_attempts=ATTEMPTS,
        )
        [enqueued] = await services.jobs.enqueue([job])
        while not (found := await services.jobs.wait(enqueued.job.id, timeout_s=LOOK_S)).state.final:
            if found.progress:
                say(f"{found.progress.done:,} of {found.progress.total:,} chunks")
        return found
