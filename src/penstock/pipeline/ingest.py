"""One document version, from its bytes to searchable chunks: parse → chunk → embed → index → ledger.

Every step may run again after a crash: chunk ids follow from the version and the position, so a repeated upsert
overwrites, and `finish_version` is what makes the version visible, in one moment, or refuses because somebody
deleted or replaced the document meanwhile.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from penstock.blobs.base import BlobStore
from penstock.errors import Unavailable
from penstock.ledger.base import Ledger, VersionWork
from penstock.models.pool import ModelPool
from penstock.pipeline.chunking import chunker_version
from penstock.pipeline.chunks import make_chunks
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.document_reader import DocumentReader, Look
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.parsing import Chunked, ChunkingRequest
from penstock.pipeline.passage_vectors import PassageVectors
from penstock.pipeline.passages import passage_text
from penstock.pipeline.picture_index import PictureIndexer
from penstock.pipeline.together import Together
from penstock.stores.base import IndexRow
from penstock.types import JSON, Chunk, CollectionOptions, DocumentStatus

SPECIAL_TOKENS = 2
"""What a BERT-like model adds to each text: a mark at its start and one at its end."""

WORKS_AT_ONCE = 200
"""Jobs are leased many at once, and each asks the ledger what it is about."""

ReportProgress = Callable[[str, int, int], Awaitable[None]]
"""(stage, done, total)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """`parallel_parses` bounds the documents whose bytes are in memory; `window_chunks` how many chunks of one document
    are embedded and indexed at a time; `chunks_in_flight` the chunks of all documents between parse and index."""

    parallel_parses: int = 16
    window_chunks: int = 128
    chunks_in_flight: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What came of it. `live` is False when the document was deleted or replaced meanwhile: nothing is left then.

    `parsed` is False and `embedded` less than `chunks` where the cache knew the document or its passages.
    """

    chunks: int = 0
    pages: int = 0
    parsed: bool = False
    embedded: int = 0
    live: bool = True
    notes: Sequence[str] = ()


class Room:
    """Bounds what many hold together. First come, first served, so that a large share is not passed over for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def taken(self, share: int) -> AsyncIterator[None]:
        """Waits until `share` (at most all there is) fits in beside what the others hold."""
        share = min(share, self._most)
        async with self._turn:
            while self._held + share > self._most:
                self._freed.clear()
                await self._freed.wait()
            self._held += share
        try:
            yield
        finally:
            self._held -= share
            self._freed.set()


class Ingestor:
    """The pipeline over its contracts; one object a worker, many documents at once."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        blobs: BlobStore,
        writer: IndexWriter,
        parsers: DocumentReader,
        pictures: PictureIndexer,
        models: ModelPool,
        cache: ContentCache,
        options: IngestOptions,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._writer = writer
        self._parsers = parsers
        self._models = models
        self._cache = cache
        self._works = Together(lambda ids: ledger.get_versions(list(ids)), most=WORKS_AT_ONCE)
        self._vectors: dict[str, PassageVectors] = {}
        self._pictures = pictures
        self._options = options
        self._parsing = asyncio.Semaphore(options.parallel_parses)
        self._room = Room(options.chunks_in_flight)

    async def ingest(self, version_id: str, report: ReportProgress) -> Ingested:
        """Brings the version to its end. Raises `ParseError` and what stores and models raise."""
        works = await self._works.get([version_id])
        work = works[version_id] if version_id in works else await self._ledger.get_version(version_id)
        if work.status is DocumentStatus.DONE:
            return Ingested()
        if not work.live or work.status is not DocumentStatus.PENDING:
            return Ingested(live=False)
        vectors = await self._vectors_by(work.collection.options.embedding_model)
        chunked, parsed = await self._passages(work, vectors, report)
        chunks = make_chunks(work, chunked, vectors.embedder)
        live, embedded = await self._show(work, chunked, chunks, report)
        if not live:
            return Ingested(live=False)  # what was indexed is garbage now, says the ledger
        return Ingested(chunks=len(chunks), pages=chunked.pages, parsed=parsed, embedded=embedded, notes=chunked.notes)

    async def _show(
        self, work: VersionWork, chunked: Chunked, chunks: Sequence[Chunk], report: ReportProgress
    ) -> tuple[bool, int]:
        """Writes the chunks wherever they must be and makes them visible; whether they are, and how many were embedded.

        A reindex may begin or end meanwhile: then they go to the other place too, and the ledger is asked again.
        """
        written, embedded = set[str](), 0
        while True:
            for index_id, options in _places(work).items():
                if index_id not in written:
                    vectors = await self._vectors_by(options.embedding_model)
                    passages = [chunk for chunk in chunks if chunk.kind != "picture"]
                    embedded += await self._index_chunks(work, index_id, passages, vectors, report)
                    pictures = chunks[len(passages) :]
                    if pictures and options.image_model:
                        await report("embed", len(passages), len(chunks))
                        embedded += await self._pictures.write(index_id, options.image_model, work, pictures)
                    written.add(index_id)
            try:
                live = await self._ledger.finish_version(
                    work.version_id,
                    chunks,
                    pages=chunked.pages,
                    notes=chunked.notes,
                    index_ids=frozenset(written),
                )
            except Unavailable:
                work = await self._ledger.get_version(work.version_id)
                if _places(work).keys() <= written:
                    raise
            else:
                return live, embedded

    async def _vectors_by(self, model: str) -> PassageVectors:
        """What embeds passages with the model; loaded, if it is not yet."""
        embedder = await self._models.embedder(model)
        known = self._vectors.get(embedder.info.name)
        if known is None or known.embedder is not embedder:
            known = self._vectors[embedder.info.name] = PassageVectors(embedder, self._cache)
        return known

    async def _passages(
        self, work: VersionWork, vectors: PassageVectors, report: ReportProgress
    ) -> tuple[Chunked, bool]:
        """The document's passages, and whether it had to be parsed for them."""
        embedder, options = vectors.embedder, work.collection.options
        chunking = ChunkingRequest(
            chunker=options.chunker,
            tokens=min(options.chunk_tokens, embedder.info.max_tokens - SPECIAL_TOKENS),
            overlap=options.chunk_overlap,
            tokenizer_file=str(embedder.tokenizer_file),
        )
        look = Look.of(options, work.sha256)
        readers = f"{self._parsers.identity(work.media_type, look)} {chunker_version(options.chunker)}"
        key = vectors.keys.passages(work.sha256, work.media_type, readers, chunking)
        if known := await self._cache.passages(key):
            return known, False
        chunked = await self._parse(work, chunking, look, report)
        self._cache.keep_passages(key, chunked)
        return chunked, True

    async def _parse(self, work: VersionWork, chunking: ChunkingRequest, look: Look, report: ReportProgress) -> Chunked:
        async with self._parsing:
            await report("parse", 0, 1)
            data = await self._blobs.get(work.sha256)
            return await self._parsers.parse_and_chunk(
                data, name=work.name, media_type=work.media_type, chunking=chunking, look=look
            )

    async def _index_chunks(
        self,
        work: VersionWork,
        index_id: str,
        chunks: Sequence[Chunk],
        vectors: PassageVectors,
        report: ReportProgress,
    ) -> int:
        """Window by window, so that a book of 50,000 chunks holds no more vectors in memory than a letter.

        Returns how many passages the model had to embed.
        """
        embedded = 0
        for first in range(0, len(chunks), self._options.window_chunks):
            window = chunks[first : first + self._options.window_chunks]
            async with self._room.taken(len(window)):
                await report("embed", first, len(chunks))
                rows = [(chunk, work.metadata) for chunk in window]
                embedded += await index_window(self._writer, index_id, rows, vectors, create=True)
        return embedded


def _places(work: VersionWork) -> dict[str, CollectionOptions]:
    """Where in the index the version must be, and what makes the vectors of each place."""
    places = {work.collection.index_id: work.collection.options}
    if work.building is not None:
        places[work.building.id] = work.building.options
    return places


async def index_window(
    writer: IndexWriter,
    index_id: str,
    window: Sequence[tuple[Chunk, Mapping[str, JSON]]],
    vectors: PassageVectors,
    *,
    create: bool = False,
) -> int:
    """Embeds chunks (each with its document's metadata) and writes them; returns how many the model had to embed.

    `create`: makes the place in the index where there is none.
    """
    texts = [passage_text(chunk) for chunk, _ in window]
    found = await vectors.of(texts)
    rows = [
        IndexRow(
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            version_id=chunk.version_id,
            text=text,
            vector=vector,
            metadata=metadata,
        )
        for (chunk, metadata), text, vector in zip(window, texts, found.vectors, strict=True)
    ]
    await writer.write(index_id, rows, create=create)
    return found.computed
