"""The last look at what was found: a reranker reads question and passage together, and gives the order."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prometheus_client import Counter

from penstock.errors import PenstockError, Unavailable
from penstock.models.base import Lane, Reranker
from penstock.models.options import NO_RERANKER
from penstock.models.pool import ModelPool
from penstock.pipeline.passages import passage_text
from penstock.types import Collection, Hit

logger = logging.getLogger(__name__)

RERANKED = Counter(
    "penstock_reranks", "Rankings by a reranker; not done: the order of the search was served", ["outcome"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """Hits, best first. `degraded`: the reranker failed, and this is the order that they came in."""

    hits: Sequence[Hit]
    degraded: bool = False


class RerankStage:
    """Asks the reranker of a collection, and does without when it fails: an answer is worth more than its order."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool

    def name_for(self, collection: Collection) -> str | None:
        """The collection's own, else the one of the settings; None: what the search finds is not reordered."""
        name = collection.options.reranker or self._pool.options.reranker
        return None if name in {"", NO_RERANKER} else name

    async def open(self, name: str) -> Reranker | None:
        """The reranker, loaded; None when it cannot be had."""
        try:
            async with asyncio.timeout(self._pool.options.rerank_s):
                return await self._pool.reranker(name)
        except (PenstockError, TimeoutError) as exc:
            self._failed(name, exc)
            return None

    async def order(self, reranker: Reranker, query: str, hits: Sequence[Hit]) -> Reranked:
        """The hits by `rerank_score`; equal ones stay as they came."""
        name = reranker.info.name
        try:
            async with asyncio.timeout(self._pool.options.rerank_s):
                scores = await reranker.rerank(query, [passage_text(hit.chunk) for hit in hits], lane=Lane.INTERACTIVE)
        except (PenstockError, TimeoutError) as exc:
            self._failed(name, exc)
            return Reranked(hits=hits, degraded=True)
        RERANKED.labels("done").inc()
        scored = [replace(hit, rerank_score=round(float(points), 6)) for hit, points in zip(hits, scores, strict=True)]
        order = sorted(range(len(hits)), key=lambda place: -float(scores[place]))
        return Reranked(hits=[scored[place] for place in order])

    def _failed(self, name: str, exc: PenstockError | TimeoutError) -> None:
        if isinstance(exc, TimeoutError):
            exc = Unavailable(f"It took longer than {self._pool.options.rerank_s:g} s (models.rerank_s).")
        logger.warning("the reranker %s failed, the order of the search is served: %s", name, exc)
        RERANKED.labels("not_done").inc()
