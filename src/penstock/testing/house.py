"""For tests: everything that an ingest needs, with real parsers and a small model that counts what it embeds."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from penstock.blobs import open_blobs
from penstock.blobs.base import BlobStore
from penstock.cache import CacheOptions, open_cache
from penstock.errors import ConfigError
from penstock.jobs import JobStore, open_store
from penstock.ledger import Ledger, open_ledger
from penstock.models.base import Embedder, ImageEmbedder, Lane, ModelInfo, Role, Vectors
from penstock.models.generator import Generator
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.pipeline.content_cache import ContentCache
from penstock.pipeline.document_reader import DocumentReader
from penstock.pipeline.index_writer import IndexWriter
from penstock.pipeline.ingest import Ingested, IngestOptions, Ingestor
from penstock.pipeline.intake import Intake, Upload
from penstock.pipeline.parsing import ParserPool, ParsingOptions
from penstock.pipeline.picture_index import PictureIndexer
from penstock.pipeline.pictures import ImageOptions
from penstock.stores import IndexStore, open_index
from penstock.types import Document

DIMENSIONS = 8


class CountingEmbedder(Embedder):
    """A vector follows from the text's hash; `texts` are all that were ever embedded."""

    def __init__(self, folder: Path, name: str = "hashes") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "tokenizer.json"
        self._tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106
        self._tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        if not self._file.exists():
            self._tokenizer.save(str(self._file))
        self._name = name
        self.texts: list[str] = []

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            name=self._name,
            kind="embedding",
            dimensions=DIMENSIONS,
            max_tokens=66,
            device="cpu",
            precision="f32",
            memory_bytes=0,
            load_s=0.0,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def tokenizer_file(self) -> Path:
        return self._file

    async def embed(
        self,
        texts: Sequence[str],
        *,
        role: Role = Role.PASSAGE,  # noqa: ARG002
        lane: Lane = Lane.INTERACTIVE,  # noqa: ARG002
    ) -> Vectors:
        self.texts += texts
        return np.stack([vector_of(text) for text in texts])


def vector_of(text: str) -> Vectors:
    raw = np.frombuffer(hashlib.sha256(text.encode()).digest()[:DIMENSIONS], np.uint8).astype(np.float32) + 1
    return raw / np.linalg.norm(raw)


class OneModel:
    """What an ingestor asks of a pool."""

    def __init__(self, embedder: Embedder, images: ImageEmbedder | None = None) -> None:
        self.model = embedder
        self.images = images
        self.options = ModelsOptions()

    async def embedder(self, name: str = "default") -> Embedder:  # noqa: ARG002
        return self.model

    async def image_embedder(self, name: str) -> ImageEmbedder:
        if self.images is None:
            raise ConfigError(f"There is no image embedder {name!r}.")
        return self.images


async def report(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(kw_only=True)
class House:
    ledger: Ledger
    jobs: JobStore
    blobs: BlobStore
    index: IndexStore
    writer: IndexWriter
    parsers: ParserPool
    cache: ContentCache
    embedder: CountingEmbedder
    images: ImageEmbedder | None = None
    vision: Generator | None = None
    looking: ImageOptions = field(default_factory=ImageOptions)
    options: IngestOptions = field(default_factory=IngestOptions)

    @property
    def pictures(self) -> PictureIndexer:
        return PictureIndexer(
            blobs=self.blobs,
            index=self.index,
            writer=self.writer,
            reader=DocumentReader(self.parsers, self.vision, self.looking, self.cache),
            models=self.models,
            cache=self.cache,
        )

    @property
    def models(self) -> ModelPool:
        return cast(ModelPool, OneModel(self.embedder, self.images))

    @property
    def ingestor(self) -> Ingestor:
        pictures = self.pictures
        return Ingestor(
            ledger=self.ledger,
            blobs=self.blobs,
            writer=self.writer,
            parsers=pictures.reader,
            pictures=pictures,
            models=self.models,
            cache=self.cache,
            options=self.options,
        )

    async def upload(
        self, name: str, data: bytes, media_type: str = "text/plain", collection: str = "default"
    ) -> Document:
        blob = await self.blobs.put(data)
        upload = Upload(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes, media_type=media_type)
        (accepted,) = await Intake(self.ledger, self.jobs).add("default", collection, [upload])
        return accepted.document

    async def ingest(
        self, name: str, data: bytes, collection: str = "default", media_type: str = "text/plain"
    ) -> Ingested:
        document = await self.upload(name, data, media_type, collection)
        return await self.ingestor.ingest(document.version_id, report)


@asynccontextmanager
async def open_house(
    folder: Path, *, cache_url: str = "memory://", index_url: str = "memory://"
) -> AsyncIterator[House]:
    """`folder` holds the ledger, the jobs and the blobs."""
    embedder = CountingEmbedder(folder)
    async with AsyncExitStack() as stack:
        cache = await stack.enter_async_context(open_cache(cache_url, CacheOptions()))
        index = await stack.enter_async_context(open_index(index_url))
        yield House(
            ledger=await stack.enter_async_context(open_ledger(f"sqlite:///{folder / 'ledger.sqlite3'}")),
            jobs=await stack.enter_async_context(open_store(f"sqlite:///{folder / 'jobs.sqlite3'}")),
            blobs=await stack.enter_async_context(open_blobs(f"file://{folder / 'blobs'}")),
            index=index,
            writer=await stack.enter_async_context(IndexWriter(index)),
            parsers=await stack.enter_async_context(ParserPool(ParsingOptions(processes=1))),
            cache=await stack.enter_async_context(ContentCache(cache, 3600.0)),
            embedder=embedder,
        )
