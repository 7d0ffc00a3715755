"""The door of a reindex: a new place in the index is begun in the ledger, and a job is to fill it."""

from dataclasses import replace

from penstock.errors import InvalidInput, Overloaded
from penstock.ids import new_id
from penstock.jobs.base import JobStore
from penstock.ledger.base import Generation, Ledger
from penstock.pipeline.requests import Kind, ReindexRequest, encode
from penstock.types import Job, NewJob, Priority

TIME_LIMIT_S = 24 * 3600.0
MAX_ATTEMPTS = 8


def reindex_job(generation: Generation, chunks: int = 0) -> NewJob:
    """The one way to say "fill this generation", for a new one as for one whose job was lost."""
    return NewJob(
        id=generation.job_id,
        kind=Kind.REINDEX,
        payload=encode(ReindexRequest(generation_id=generation.id, chunks=chunks)),
        tenant=generation.tenant,
        priority=Priority.NORMAL,
        subject=generation.collection_id,
        time_limit_s=TIME_LIMIT_S,
        max_attempts=MAX_ATTEMPTS,
    )


async def start_reindex(
    ledger: Ledger,
    jobs: JobStore,
    tenant: str,
    name: str,
    *,
    model: str | None = None,
    image_model: str | None = None,
    engine: str | None = None,
) -> Job:
    """The job that moves a collection to a new place in the index, embedded with `model`, its pictures with
    `image_model`, in the index `engine` ("" is the main one); each as it is now where not given. Searches go on in the
    old place until all is in the new one.

    `NotFound` (collection), `Conflict` while another reindex of it runs, `Overloaded`; `InvalidInput` for an image
    model where there was none: nobody looked for pictures in its documents.
    """
    collection = await ledger.get_collection(tenant, name)
    options = collection.options
    if image_model is not None and options.image_model is None:
        raise InvalidInput(
            f"The collection {name!r} was made without an image model, and the pictures in its documents were not "
            "looked for. Copy it into a new collection that has one."
        )
    options = replace(
        options,
        embedding_model=model or options.embedding_model,
        image_model=image_model or options.image_model,
    )
    before, dot, _ = collection.index_id.rpartition(".")
    place = before + dot if engine is None else f"{engine}." if engine else ""
    generation = await ledger.generations.start(tenant, name, place + new_id("idx"), options, new_id("job"))
    try:
        [enqueued] = await jobs.enqueue([reindex_job(generation, collection.chunks)])
    except Overloaded:
        await ledger.generations.abandon(generation.id)
        raise
    return enqueued.job
