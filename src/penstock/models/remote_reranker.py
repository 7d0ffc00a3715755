"""Reranking by any API in the shape that Jina and Cohere share: `{model, query, documents, top_n}` → `results`."""

import random
import ssl
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.models.base import Lane, ModelInfo, Reranker
from penstock.models.metrics import ModelMetrics
from penstock.models.options import RemoteRerankerOptions
from penstock.models.remote_call import RemoteCall
from penstock.models.remote_replies import BadReply, read_scores


class RemoteReranker(Reranker):
    """An async context manager. A reply with a wrong count, index or number is refused whole."""

    def __init__(
        self,
        name: str,
        options: RemoteRerankerOptions,
        *,
        metrics: ModelMetrics,
        random_source: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._call = RemoteCall(options.path, options, metrics=metrics, random_source=random_source, tls=tls)
        self._closed = False
        self._info = ModelInfo(
            name=name,
            kind="rerank",
            dimensions=1,
            max_tokens=0,
            device="remote",
            precision="",
            memory_bytes=0,
            load_s=0.0,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        await self._call.close()

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def candidates(self) -> int:
        return self._options.candidates

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def in_flight(self) -> int:
        """Calls at the provider now."""
        return self._call.in_flight

    async def rerank(self, query: str, texts: Sequence[str], *, lane: Lane = Lane.INTERACTIVE) -> NDArray[np.float32]:
        if not texts:
            return np.empty(0, np.float32)
        body = {"model": self._options.model, "query": query, "documents": list(texts), "top_n": len(texts)}

        def read(reply: bytes) -> NDArray[np.float32]:
            try:
                return read_scores(reply, len(texts))
            except BadReply as exc:
                raise self._call.bad_reply(str(exc)) from exc

        return await self._call.post(body, read, urgent=lane is Lane.INTERACTIVE)
