"""Fills a new place in the index from the ledger while searches go on in the old one, then switches in one moment.

Documents that arrive meanwhile are written to both places by whoever ingests them: the ledger sees to it. So what was
searchable at the start is all that is left to copy, in order of chunk ids, and a worker that dies is resumed there.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from penstock.errors import NotFound, PenstockError
from penstock.jobs.worker import JobContext
from penstock.ledger.base import Found, Generation, Ledger
from penstock.models.pool import ModelPool
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.ingest import index_window
from penstock.pipeline.passage_vectors import PassageVectors
from penstock.pipeline.picture_index import PictureIndexer
from penstock.pipeline.requests import ReindexRequest, decode, encode
from penstock.stores.base import IndexStore
from penstock.stores.places import places
from penstock.types import JSON, Chunk

WINDOW_CHUNKS = 512

ReportProgress = Callable[[str, int, int], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """`switched` is False when somebody cancelled it, or deleted the collection."""

    chunks: int
    switched: bool


class Reindexer:
    """One object a worker."""

    def __init__(
        self,
        ledger: Ledger,
        index: IndexStore,
        writer: IndexWriter,
        models: ModelPool,
        cache: ContentCache,
        pictures: PictureIndexer,
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._writer = writer
        self._models = models
        self._cache = cache
        self._pictures = pictures

    async def handle(self, context: JobContext) -> JSON:
        """A job of the kind `reindex`. One that fails for good leaves everything as it was."""
        request = decode(ReindexRequest, context.job.payload)
        try:
            return encode(await self.reindex(request.generation_id, request.chunks, context.progress))
        except PenstockError as exc:
            if not exc.retryable or context.job.last_attempt:
                await self._ledger.generations.abandon(request.generation_id)
            raise

    async def reindex(self, generation_id: str, chunks: int, report: ReportProgress) -> Reindexed:
        generation = await self._ledger.generations.building(generation_id)
        if generation is None:  # done by an attempt that did not live to say so, or given up
            switched = await self._ledger.generations.switch(generation_id)
            return Reindexed(chunks=chunks if switched else 0, switched=switched)
        done = await self._fill(generation, chunks, report)
        return Reindexed(chunks=done, switched=await self._ledger.generations.switch(generation_id))

    async def _fill(self, generation: Generation, chunks: int, report: ReportProgress) -> int:
        embedder = await self._models.embedder(generation.options.embedding_model)
        vectors = PassageVectors(embedder, self._cache)
        await self._index.create(generation.id, embedder.info.dimensions)
        done, after = generation.done, generation.cursor
        while page := await self._ledger.scan_chunks(generation.collection_id, after=after, limit=WINDOW_CHUNKS):
            passages = [(found.chunk, found.metadata) for found in page if found.chunk.kind != "picture"]
            if passages:
                await index_window(self._writer, generation.id, passages, vectors)
            await self._index_pictures(generation, page)
            await self._take_back(generation, page)
            done, after = done + len(page), page[-1].chunk.id
            if not await self._ledger.generations.move(generation.id, after, done):
                break  # given up: the switch will say so
            await report("index", done, max(chunks, done))
        for place in places(generation.id):
            await self._index.optimise(place)
        return done

    async def _index_pictures(self, generation: Generation, page: Sequence[Found]) -> None:
        model = generation.options.image_model
        by_version = defaultdict[str, list[Chunk]](list)
        for found in page:
            if model is not None and found.chunk.kind == "picture":
                by_version[found.chunk.version_id].append(found.chunk)
        for version_id, chunks in by_version.items():
            with suppress(NotFound):  # deleted meanwhile
                work = await self._ledger.get_version(version_id)
                await self._pictures.write(generation.id, model or "", work, chunks)

    async def _take_back(self, generation: Generation, page: Sequence[Found]) -> None:
        """What was deleted or replaced between the look into the ledger and the write may have been purged before."""
        visible = await self._ledger.get_chunks(generation.collection_id, [found.chunk.id for found in page])
        gone = {found.chunk.version_id for found in page if found.chunk.id not in visible}
        if gone:
            for place in places(generation.id):
                await self._index.delete(place, version_ids=sorted(gone))
