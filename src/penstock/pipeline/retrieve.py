"""From a question to the passages that may answer it: embed, search both lanes, fuse, ask the ledger for the texts."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import InvalidInput
from penstock.filters import Filter, parse_filter
from penstock.ledger.base import Found, Ledger
from penstock.models.base import Embedder, Lane, Role
from penstock.models.pool import ModelPool
from penstock.pipeline.fusion import Mode, fuse
from penstock.stores.base import Candidate, IndexQuery, IndexStore, Vector
from penstock.types import JSON, Collection, Hit

LANE_CANDIDATES = 100
"""How many rows each lane hands to the fusion: far more than are shown, so that a good second in both is not missed."""
MAX_CANDIDATES = 1_600
UNKNOWN_TOKENS = frozenset({"[UNK]", "<unk>"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Hits, best first, and the milliseconds of the stages `embed` and `retrieve`."""

    hits: Sequence[Hit]
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Question:
    """A question as the lanes need it; `known` is what `known_share` says."""

    text: str
    mode: Mode
    vector: Vector | None = None
    known: float = 1.0


class Retriever:
    """Finds passages of a collection. Only what the ledger says is visible is ever returned."""

    def __init__(self, ledger: Ledger, index: IndexStore, pool: ModelPool) -> None:
        self._ledger = ledger
        self._index = index
        self._pool = pool

    async def retrieve(
        self,
        collection: Collection,
        query: str,
        *,
        limit: int,
        mode: Mode = "fused",
        filter: JSON = None,  # noqa: A002
    ) -> Retrieved:
        """At most `limit` hits. `filter` is in the language of `penstock.filters`; `InvalidInput` when it is not.

        Passages with the very same text count once while there are others to show.
        """
        where = parse_filter(filter)
        if not query.strip():
            raise InvalidInput("The question is empty")
        started = time.perf_counter()
        question = await self._read(collection, query, mode)
        embedded = time.perf_counter()
        hits = await self._find(collection, question, limit, where)
        done = time.perf_counter()
        timings_ms = {"embed": (embedded - started) * 1000, "retrieve": (done - embedded) * 1000}
        return Retrieved(hits=hits, timings_ms=timings_ms)

    async def _read(self, collection: Collection, query: str, mode: Mode) -> _Question:
        if mode == "fulltext":
            return _Question(query, mode)
        embedder = await self._pool.embedder(collection.options.embedding_model)
        vectors = await embedder.embed([query], role=Role.QUERY, lane=Lane.INTERACTIVE)
        return _Question(query, mode, vectors[0], known_share(embedder, query))

    async def _find(self, collection: Collection, question: _Question, limit: int, where: Filter | None) -> list[Hit]:
        """Looks deeper when what was found is no longer visible: the index keeps old versions until the next purge."""
        k = max(LANE_CANDIDATES, 2 * limit)
        text = None if question.mode == "dense" else question.text
        while True:
            found = await self._index.search(
                collection.id, IndexQuery(k=k, vector=question.vector, text=text, filter=where)
            )
            ranked = fuse(found, mode=question.mode, known=question.known)
            hits = await self._visible(collection, ranked, limit)
            if len(hits) >= limit or len(found.candidates) < k or k >= MAX_CANDIDATES:
                return hits
            k *= 4

    async def _visible(
        self, collection: Collection, ranked: Sequence[tuple[float, Candidate]], limit: int
    ) -> list[Hit]:
        hits: list[Hit] = []
        step = limit + LANE_CANDIDATES // 10
        for start in range(0, len(ranked), step):
            part = ranked[start : start + step]
            visible = await self._ledger.get_chunks(collection.id, [one.chunk_id for _, one in part])
            hits += [_hit(visible[one.chunk_id], score, one) for score, one in part if one.chunk_id in visible]
            if len({hit.chunk.text for hit in hits}) >= limit:
                break
        return _prefer_distinct(hits, limit)


def known_share(embedder: Embedder, query: str) -> float:
    """The share of the question's tokens that the embedding model's vocabulary has: 0 none, 1 all."""
    tokens = embedder.tokenizer.encode(query, add_special_tokens=False).tokens
    unknown = sum(token in UNKNOWN_TOKENS for token in tokens)
    return 1 - unknown / max(len(tokens), 1)


def _hit(found: Found, score: float, one: Candidate) -> Hit:
    return Hit(
        chunk=found.chunk,
        document_name=found.document_name,
        score=round(score, 6),
        dense_score=one.dense,
        fulltext_score=one.fulltext,
        metadata=found.metadata,
    )


def _prefer_distinct(hits: Sequence[Hit], limit: int) -> list[Hit]:
    """The first `limit` with a text of their own; repetitions only fill what room is left. The order stays."""
    seen: set[str] = set()
    repeated: list[bool] = []
    for hit in hits:
        repeated.append(hit.chunk.text in seen)
        seen.add(hit.chunk.text)
    chosen = sorted(sorted(range(len(hits)), key=repeated.__getitem__)[:limit])
    return [hits[i] for i in chosen]
