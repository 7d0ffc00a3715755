"""Pictures of documents to vectors in the index, beside the passages: for a fresh document as for a reindex."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from penstock.blobs.base import BlobStore
from penstock.errors import InvalidInput, NotFound, ParseError, PenstockError, TooLarge, UnsupportedMedia
from penstock.ledger.base import VersionWork
from penstock.models.base import ImageEmbedder, Lane, Role, Vectors
from penstock.models.pool import ModelPool
from penstock.pipeline.content_cache import ContentCache, ContentKeys
from penstock.pipeline.document_reader import DocumentReader
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.parsing.records import FoundPicture
from penstock.stores.base import IndexRow, IndexStore
from penstock.stores.places import pictures_place
from penstock.types import Chunk

logger = logging.getLogger(__name__)

_AT_ONCE = 8
"""Documents whose pictures are in memory: each at most `images.per_document`."""

_REFUSED = (InvalidInput, TooLarge, UnsupportedMedia)


class PictureIndexer:
    """One object a worker."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        index: IndexStore,
        writer: IndexWriter,
        reader: DocumentReader,
        models: ModelPool,
        cache: ContentCache,
    ) -> None:
        self._blobs = blobs
        self._index = index
        self._writer = writer
        self.reader = reader
        self._models = models
        self._cache = cache
        self._keys: dict[str, ContentKeys] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def write(self, index_id: str, model: str, work: VersionWork, chunks: Sequence[Chunk]) -> int:
        """Writes pictures of one version (chunks of that kind) to the place beside `index_id`; returns how many the
        model had to embed. A picture that cannot be drawn any more is found by its words.

        Raises what models, blobs and the index raise.
        """
        embedder = await self._models.image_embedder(model)
        place = pictures_place(index_id)
        await self._index.create(place, embedder.info.dimensions)
        async with self._turns:
            vectors, computed = await self._vectors(embedder, work, chunks)
        rows = [
            IndexRow(
                chunk_id=chunk.id,
                document_id=chunk.document_id,
                version_id=chunk.version_id,
                text=chunk.text,
                vector=vector,
                metadata=work.metadata,
            )
            for chunk, vector in zip(chunks, vectors, strict=True)
        ]
        await self._writer.write(place, rows)
        return computed

    async def _vectors(
        self, embedder: ImageEmbedder, work: VersionWork, chunks: Sequence[Chunk]
    ) -> tuple[Sequence[Vectors], int]:
        numbers = [chunk.picture or 0 for chunk in chunks]
        keys = self._keys_of(embedder).pictures(work.sha256, numbers)
        known = dict(await self._cache.vectors(keys, embedder.info.dimensions))
        missing = [(key, chunk) for key, chunk in zip(keys, chunks, strict=True) if key not in known]
        if missing:
            drawn = await self._draw(embedder, work)
            fresh = {key: drawn[chunk.picture] for key, chunk in missing if chunk.picture in drawn}
            self._cache.keep_vectors(list(fresh), np.array(list(fresh.values()), np.float32))
            known.update(fresh)
        for key, chunk in missing:
            if key not in known:
                [known[key]] = await embedder.embed([chunk.text], role=Role.PASSAGE, lane=Lane.BULK)
        return [known[key] for key in keys], len(missing)

    async def _draw(self, embedder: ImageEmbedder, work: VersionWork) -> Mapping[int | None, Vectors]:
        """The vectors of all the document's pictures, by number; those that nobody can see are not among them."""
        vectors: dict[int | None, Vectors] = {}

        async def embed(one: FoundPicture) -> None:
            try:
                [vectors[one.number]] = await embedder.embed_images([one.picture.data], lane=Lane.BULK)
            except _REFUSED as exc:
                logger.warning("Picture %d of %s: %s", one.number, work.version_id, exc)

        try:
            data = await self._blobs.get(work.sha256)
            found = await self.reader.pictures(data, name=work.name, media_type=work.media_type, sha256=work.sha256)
        except (NotFound, ParseError) as exc:
            logger.warning("The pictures of %s cannot be looked at: %s", work.version_id, exc)
            return {}
        try:
            async with asyncio.TaskGroup() as group:
                for one in found:
                    group.create_task(embed(one))
        except* PenstockError as errors:
            raise errors.exceptions[0] from None
        return vectors

    def _keys_of(self, embedder: ImageEmbedder) -> ContentKeys:
        """Read once a model: they depend on its files."""
        name = f"{embedder.info.name} {embedder.info.told} {embedder.info.precision}"
        if name not in self._keys:
            self._keys[name] = ContentKeys(embedder)
        return self._keys[name]
