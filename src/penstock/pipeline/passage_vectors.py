"""Vectors of passages: from the cache where their text was embedded before, else from the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penstock.models.base import Embedder, Lane, Role, Vectors
from penstock.pipeline.content_cache import ContentCache, ContentKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """`vectors` in the order of the texts; `computed` counts those that the model had to make."""

    vectors: Vectors
    computed: int


class PassageVectors:
    """For one model, kept as long as it is used; equal texts of one call are embedded once."""

    def __init__(self, embedder: Embedder, cache: ContentCache) -> None:
        self.embedder = embedder
        self._cache = cache
        self.keys = ContentKeys(embedder)

    async def of(self, texts: Sequence[str]) -> Embedded:
        """Raises what the model raises; a cache that is away makes it slower, no more."""
        keys = self.keys.vectors(texts)
        known = dict(await self._cache.vectors(keys, self.embedder.info.dimensions))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            fresh = await self.embedder.embed(list(missing.values()), role=Role.PASSAGE, lane=Lane.BULK)
            self._cache.keep_vectors(list(missing), fresh)
            known.update(zip(missing, fresh, strict=True))
        vectors = np.stack([known[key] for key in keys]) if keys else np.empty((0, self.embedder.info.dimensions))
        return Embedded(vectors=vectors.astype(np.float32, copy=False), computed=len(missing))
