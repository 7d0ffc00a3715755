"""`penstock reindex`: works on the stores of the settings, and has a worker do it."""

import asyncio
from typing import Annotated

import typer

from penstock.app import open_services
from penstock.cli.output import Json, count, exit_codes, print_json, say
from penstock.cli.process import DataDir, given
from penstock.client.problems import failure_error
from penstock.errors import Conflict, InvalidInput, Unavailable
from penstock.pipeline.reindexing import start_reindex
from penstock.settings import load_settings
from penstock.types import DEFAULT_TENANT, Job, JobState

LOOK_S = 2.0


def reindex(
    collection: Annotated[str, typer.Argument(help="The collection's name.")],
    tenant: Annotated[str, typer.Option(help="Whose collection.")] = DEFAULT_TENANT,
    model: Annotated[str | None, typer.Option(help="Another embedding model, by its name in the settings.")] = None,
    image_model: Annotated[
        str | None, typer.Option(help="Another image embedder, by its name in the settings, where there is one now.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Another index, by its name in the settings (index_engines); '' the main one.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Rebuild a collection's index from the ledger: after it was lost, with another model, or in another engine.

    A running worker does it (`penstock serve`). Searches go on in the old index until the new one is whole, and switch
    in one moment; documents may arrive meanwhile. To give up, cancel the job.
    """
    with exit_codes(as_json=as_json):
        job = asyncio.run(_reindex(data_dir, tenant, collection, model, image_model, engine))
        if job.state is not JobState.SUCCEEDED:
            raise failure_error(job.error, f"The reindex of {collection!r}")
        if not job.result["switched"]:
            raise Conflict(f"The reindex of {collection!r} was given up meanwhile: all is as it was.")
        if as_json:
            print_json({"collection": collection, "job_id": job.id, "chunks": job.result["chunks"]})
        else:
            typer.echo(f"Rebuilt {collection!r}: {count(job.result['chunks'], 'chunk')}.")


async def _reindex(
    data_dir: DataDir, tenant: str, name: str, model: str | None, image_model: str | None, engine: str | None
) -> Job:
    settings = load_settings(given({"data_dir": data_dir}))
    async with open_services(settings) as services:
        await services.ledger.get_collection(tenant, name)
        if not any(worker.ready for worker in await services.jobs.workers()):
            raise Unavailable("No worker is ready to do this. Start one with `penstock serve` or `penstock worker`.")
        if model is not None and model not in settings.models.embedder_names:
            names = ", ".join(settings.models.embedder_names)
            raise InvalidInput(f"There is no embedding model {model!r} in the settings. There are: {names}.")
        if image_model is not None and image_model not in settings.models.image_embedders:
            raise InvalidInput(f"There is no image embedder {image_model!r} in the settings (models.image_embedders).")
        if engine and engine not in settings.index_engines:
            raise InvalidInput(f"There is no index engine {engine!r} in the settings (index_engines).")
        job = await start_reindex(
            services.ledger, services.jobs, tenant, name, model=model, image_model=image_model, engine=engine
        )
        while not (found := await services.jobs.wait(job.id, timeout_s=LOOK_S)).state.final:
            if found.progress:
                say(f"{found.progress.done:,} of {found.progress.total:,} chunks")
        return found
