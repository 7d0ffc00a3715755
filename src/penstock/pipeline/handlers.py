"""What a worker does with each kind of job: reads the payload, calls the pipeline, returns the result as JSON."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from penstock.errors import OutOfMemory, PenstockError, Unavailable
from penstock.jobs.worker import Handler, JobContext
from penstock.ledger.base import Ledger
from penstock.models.generator import Picture
from penstock.observability.timings import Timings
from penstock.pipeline.answer import Answerer, Emit
from penstock.pipeline.ingest import Ingested, Ingestor
from penstock.pipeline.intake import open_collection
from penstock.pipeline.pictures import Pictures
from penstock.pipeline.prompts import IMAGE_COMPARED, IMAGE_NOT_READ, language_of
from penstock.pipeline.requests import (
    IngestRequest,
    Kind,
    QuestionRequest,
    SearchRequest,
    SearchResult,
    decode,
    encode,
)
from penstock.pipeline.retrieve import Retriever
from penstock.pipeline.together import Together
from penstock.types import JSON, Answer, Collection, Failure, Job

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""While a store is away, before the first and between later looks whether it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """The pipeline's verbs as job handlers."""

    ledger: Ledger
    ingestor: Ingestor
    retriever: Retriever
    answerer: Answerer
    pictures: Pictures
    _collections: Together[tuple[str, str], Collection] = field(init=False)
    """One key at a time: who names a collection that is not there fails alone."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_collections", Together(self._open_collections, most=1))

    def by_kind(self) -> Mapping[str, Handler]:
        return {
            Kind.INGEST: self.ingest,
            Kind.SEARCH: self.search,
            Kind.QUESTION: self.question,
        }

    async def ingest(self, context: JobContext) -> JSON:
        version_id = decode(IngestRequest, context.job.payload).version_id
        try:
            return encode(await self._ingest(version_id, context))
        except PenstockError as exc:
            if not exc.retryable or context.job.last_attempt:
                failure = Failure(code=exc.code, message=exc.message, attempt=context.attempt, at=time.time())
                await self.ledger.fail_version(version_id, failure)
            raise

    async def _ingest(self, version_id: str, context: JobContext) -> Ingested:
        """A store that is away is waited for as long as the attempt may take: it costs the document no attempt, and
        what was parsed and embedded meanwhile is kept."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self.ingestor.ingest(version_id, context.progress)
            except OutOfMemory:
                raise
            except Unavailable as exc:
                logger.warning("Ingest of %s goes on in %.0f s: %s", version_id, pause_s, exc.message)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def search(self, context: JobContext) -> JSON:
        request = decode(SearchRequest, context.job.payload)
        timings = Timings(queue_wait_ms(context.job))
        collection = await self._collection(context.job.tenant, request.collection)
        picture = await self.pictures.draw(request.image_sha256) if request.image_sha256 else None
        found = await self.retriever.retrieve(
            collection,
            request.query,
            limit=request.limit,
            mode=request.mode,
            filter=request.filter,
            image=picture.data if picture else None,
        )
        timings.add(found.timings_ms)
        return encode(
            SearchResult(
                hits=list(found.hits),
                collection_version=collection.version,
                timings_ms=timings.to_dict(),
                degraded=found.degraded,
            )
        )

    async def question(self, context: JobContext) -> JSON:
        request = decode(QuestionRequest, context.job.payload)
        timings = Timings(queue_wait_ms(context.job))
        collection = await self._collection(context.job.tenant, request.collection)
        picture, image = await self._image(request, collection)
        query = await self._query(request.question, picture, timings)
        found = await self.retriever.retrieve(
            collection, query, limit=request.limit, filter=request.filter, image=image
        )
        timings.add(found.timings_ms)
        shown = await self.pictures.of_hits(found.hits, self.ledger)

        async def tell(text: str) -> None:
            await context.say(text)

        emit = tell if request.stream else None
        answer = await self.answerer.answer(request.question, found.hits, emit=emit, picture=picture, shown=shown)
        if request.image_sha256 and picture is None:
            said = IMAGE_COMPARED if image else IMAGE_NOT_READ
            answer = await _say_unread(answer, said[language_of(request.question)], emit)
        timings.add(answer.timings_ms)
        answer = replace(answer, collection_version=collection.version, degraded=found.degraded)
        return encode(replace(answer, timings_ms=timings.to_dict()))

    async def _image(self, request: QuestionRequest, collection: Collection) -> tuple[Picture | None, bytes | None]:
        """The question's image for the model that takes such, and to compare the collection's pictures with."""
        if request.image_sha256 is None:
            return None, None
        if collection.options.image_model is None:
            return await self.pictures.open(request.image_sha256), None
        drawn = await self.pictures.draw(request.image_sha256)
        return drawn if self.pictures.reader else None, drawn.data

    async def _query(self, question: str, picture: Picture | None, timings: Timings) -> str:
        """What is searched for: the question, and what its image shows."""
        if picture is None:
            return question
        started = time.perf_counter()
        shown = await self.pictures.describe(picture, question)
        timings.add({"describe": (time.perf_counter() - started) * 1000})
        return f"{question}\n{shown.text}" if shown else question

    async def _collection(self, tenant: str, name: str) -> Collection:
        """The collection; the default one may be asked before its first document made it, and is empty then."""
        key = tenant, name
        return (await self._collections.get([key]))[key]

    async def _open_collections(self, keys: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Collection]:
        return {key: await open_collection(self.ledger, *key) for key in keys}


async def _say_unread(answer: Answer, unread: str, emit: Emit | None) -> Answer:
    """The answer with a last sentence that says so."""
    if emit:
        await emit(f"\n\n{unread}")
    return replace(answer, text=f"{answer.text}\n\n{unread}", notes=[*answer.notes, unread])


def queue_wait_ms(job: Job) -> float:
    """From the moment that the job could run to the moment that this attempt was leased."""
    return max(0.0, (job.started_at or job.run_at) - max(job.run_at, job.created_at)) * 1000
