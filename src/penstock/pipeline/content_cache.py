"""What ingest need not compute twice: passages by a document's content, vectors by a passage's.

A key names everything that the value follows from, so that a value is never outdated; it is at most gone.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.cache.base import Cache
from penstock.models.base import Embedder, Role, Vectors
from penstock.pipeline.parsing.records import Chunked, ChunkingRequest
from penstock.pipeline.together import Together

logger = logging.getLogger(__name__)

PASSAGES = "passages"
VECTORS = "vectors"
CAPTIONS = "captions"
"""Namespaces, and labels of the cache's metrics."""

KEYS_AT_ONCE = 1_000
"""What documents in flight look for goes together: a trip to the cache costs more than what one of them looks for."""
FLUSH_S = 0.25
MAX_UNWRITTEN_BYTES = 32 * 1024 * 1024
"""What is new is written a few times a second in one transaction; beyond so many bytes it is not kept at all."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Chunked).decode


class ContentCache:
    """Over any cache; an async context manager. What was kept is seen by others a quarter of a second later."""

    def __init__(self, cache: Cache, ttl_s: float) -> None:
        self._cache = cache
        self._ttl_s = ttl_s
        self._unwritten: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self._unwritten_bytes = 0
        self._writing: asyncio.Task[None] | None = None
        self._sought = {
            namespace: Together(partial(cache.get_many, namespace), most=KEYS_AT_ONCE)
            for namespace in (PASSAGES, VECTORS, CAPTIONS)
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:
            await self._writing

    async def passages(self, key: str) -> Chunked | None:
        """What was kept under a key of `ContentKeys`."""
        found = await self._sought[PASSAGES].get([key])
        try:
            return _decode(found[key]) if key in found else None
        except msgspec.MsgspecError as exc:
            logger.warning("A cached parse result is of no use: %s", exc)
            return None

    def keep_passages(self, key: str, chunked: Chunked) -> None:
        """Not kept is what has no passages, or something that nobody could read: another time it may be read."""
        if chunked.pieces and chunked.complete and not chunked.unread:
            self._keep(PASSAGES, {key: _encode(chunked)})

    async def vectors(self, keys: Sequence[str], dimensions: int) -> Mapping[str, NDArray[np.float32]]:
        """Those that are there, by keys of `ContentKeys`."""
        found = await self._sought[VECTORS].get(keys)
        values = ((key, found[key]) for key in keys if key in found)
        return {key: np.frombuffer(value, np.float32) for key, value in values if len(value) == 4 * dimensions}

    def keep_vectors(self, keys: Sequence[str], vectors: Vectors) -> None:
        self._keep(VECTORS, {key: vector.tobytes() for key, vector in zip(keys, vectors, strict=True)})

    async def caption(self, key: str) -> str | None:
        """What was kept under a `caption_key`."""
        found = await self._sought[CAPTIONS].get([key])
        return found[key].decode(errors="replace") if key in found else None

    def keep_caption(self, key: str, text: str) -> None:
        self._keep(CAPTIONS, {key: text.encode()})

    def _keep(self, namespace: str, items: Mapping[str, bytes]) -> None:
        size = sum(map(len, items.values()))
        if self._unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            return
        self._unwritten[namespace].update(items)
        self._unwritten_bytes += size
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="content cache")

    async def _write(self) -> None:
        while self._unwritten:
            await asyncio.sleep(FLUSH_S)
            unwritten, self._unwritten = self._unwritten, defaultdict(dict)
            for namespace, items in unwritten.items():
                await self._cache.set_many(namespace, items, self._ttl_s)
            self._unwritten_bytes = sum(len(v) for items in self._unwritten.values() for v in items.values())
        self._writing = None


class ContentKeys:
    """Keys for one model. Reads its files once: make one a model, not one a document."""

    def __init__(self, embedder: Embedder) -> None:
        info = embedder.info
        which = [info.name, info.told, info.dimensions, info.max_tokens, info.precision]
        identity = [*which, Role.PASSAGE, _files(embedder)]
        self._model = hashlib.blake2b(_encode(identity), digest_size=16)
        self._tokenizer = _digest(embedder.tokenizer_file.read_bytes())

    def passages(self, sha256: str, media_type: str, parser: str, chunking: ChunkingRequest) -> str:
        """Of a document. `parser` names parser and chunker with their versions; the tokenizer counts by its content."""
        return _digest(_encode([sha256, media_type, parser, replace(chunking, tokenizer_file=self._tokenizer)]))

    def vectors(self, texts: Sequence[str]) -> list[str]:
        """Of passages: the model's name, files, precision and size of vectors are part of them."""
        return [self._vector(text) for text in texts]

    def pictures(self, sha256: str, numbers: Sequence[int]) -> list[str]:
        """Of the pictures in a document, by their numbers."""
        return [self._vector(f"picture {number} of {sha256}") for number in numbers]

    def _vector(self, text: str) -> str:
        digest = self._model.copy()
        digest.update(text.encode())
        return digest.hexdigest()


def caption_key(picture_sha256: str, model: str, prompt: str, tokens: int) -> str:
    """Of a picture in a document: the model that describes it, and what that is told, are part of it."""
    return _digest(_encode([picture_sha256, model, prompt, tokens]))


def _files(embedder: Embedder) -> list[tuple[str, int, int]]:
    """The model's files as they lie beside its tokenizer, so that a model that is replaced in place is another one."""
    folder = embedder.tokenizer_file.parent
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*/config.json")])
    return [(str(file.relative_to(folder)), (found := file.stat()).st_size, found.st_mtime_ns) for file in files]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
