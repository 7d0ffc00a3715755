"""From a question to the passages that may answer it: embed, search both lanes, fuse, read the texts, weigh, rerank."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.errors import InvalidInput
from penstock.filters import Filter, parse_filter
from penstock.ledger.base import Found, Ledger
from penstock.models.base import Embedder, Lane, Role
from penstock.models.pool import ModelPool
from penstock.pipeline.evidence import EXAMINED, Examiner
from penstock.pipeline.fusion import Mode, Ranked, fuse, score
from penstock.pipeline.picture_finder import PictureFinder, blend
from penstock.pipeline.rerank import Reranked, RerankStage
from penstock.pipeline.together import Together
from penstock.stores.analyzer import Analyzer
from penstock.stores.base import Candidate, IndexQuery, IndexStore, Vector
from penstock.types import JSON, Collection, Hit

LANE_CANDIDATES = 100
"""How many rows each lane hands to the fusion: far more than are shown, so that a good second in both is not missed."""
MAX_CANDIDATES = 1_600
CHUNKS_TOGETHER = 250
"""What questions that come at once read from the ledger in one look-up: some 3 ms of work."""
UNKNOWN_TOKENS = frozenset({"[UNK]", "<unk>"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Hits, best first, and the milliseconds of the stages `embed`, `retrieve` and, where there is one, `rerank`.

    `degraded`: the collection's reranker failed, and the order is that of the search alone.
    """

    hits: Sequence[Hit]
    timings_ms: Mapping[str, float]
    degraded: bool = False


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
        self._examiner = Examiner(Analyzer())
        self._reranking = RerankStage(pool)
        self._chunks = Together(self._get_chunks, most=CHUNKS_TOGETHER)
        self._pictures = PictureFinder(ledger, index, pool)

    async def retrieve(
        self,
        collection: Collection,
        query: str,
        *,
        limit: int,
        mode: Mode = "fused",
        filter: JSON = None,  # noqa: A002
        image: bytes | None = None,
    ) -> Retrieved:
        """At most `limit` hits: passages, and pictures where the collection has an image model.

        `image` is one to compare pictures with (redrawn: it is decoded here); then the query may be empty. `filter` is
        in the language of `penstock.filters`; `InvalidInput` when it is not.

        Passages with the very same text count once while there are others to show. Where the collection or the settings
        name a reranker, it orders the fused ranking; a collection whose `reranker` is `none` has none.
        """
        where = parse_filter(filter)
        pictured = mode == "fused" and (collection.options.image_model is not None or image is not None)
        if pictured:
            return await self._with_pictures(collection, query, image, limit, where)
        return await self._passages(collection, query, limit, mode, where)

    async def _with_pictures(
        self, collection: Collection, query: str, image: bytes | None, limit: int, where: Filter | None
    ) -> Retrieved:
        """One after the other: both keep the processor busy."""
        found = Retrieved(hits=(), timings_ms={})
        if query.strip() or image is None:
            found = await self._passages(collection, query, limit, "fused", where)
        started = time.perf_counter()
        pictures = await self._pictures.find(collection, query.strip(), image, limit=limit, where=where)
        timings_ms = {**found.timings_ms, "pictures": (time.perf_counter() - started) * 1000}
        return Retrieved(
            hits=blend(found.hits, pictures.hits, limit),
            timings_ms=timings_ms,
            degraded=found.degraded or pictures.degraded,
        )

    async def _passages(
        self, collection: Collection, query: str, limit: int, mode: Mode, where: Filter | None
    ) -> Retrieved:
        if not query.strip():
            raise InvalidInput("The question is empty")
        started = time.perf_counter()
        question = await self._read(collection, query, mode)
        embedded = time.perf_counter()
        name = self._reranking.name_for(collection) if mode == "fused" else None
        reranker = await self._reranking.open(name) if name else None
        opened = time.perf_counter()
        hits = await self._find(collection, question, max(limit, reranker.candidates if reranker else 0), where)
        found = time.perf_counter()
        timings_ms = {"embed": (embedded - started) * 1000, "retrieve": (found - opened) * 1000}
        if name is None:
            return Retrieved(hits=hits, timings_ms=timings_ms)
        ranked = await self._reranking.order(reranker, query, hits) if reranker else Reranked(hits=hits, degraded=True)
        timings_ms["rerank"] = (time.perf_counter() - found + opened - embedded) * 1000
        return Retrieved(hits=_prefer_distinct(ranked.hits, limit), timings_ms=timings_ms, degraded=ranked.degraded)

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
            query = IndexQuery(k=k, vector=question.vector, text=text, filter=where)
            found = await self._index.search(collection.index_id or collection.id, query)
            ranked = fuse(found, mode=question.mode, known=question.known)
            hits = self._weigh(question, await self._visible(collection, ranked, limit))
            if len(hits) >= limit or len(found.candidates) < k or k >= MAX_CANDIDATES:
                return _prefer_distinct(hits, limit)
            k *= 4

    async def _visible(
        self, collection: Collection, ranked: Sequence[Ranked], limit: int
    ) -> list[tuple[Ranked, Found]]:
        """The first visible ones, enough to examine and to have `limit` different texts if there are as many."""
        visible: list[tuple[Ranked, Found]] = []
        step = max(limit, EXAMINED)
        for start in range(0, len(ranked), step):
            part = ranked[start : start + step]
            keys = [(collection.id, one.candidate.chunk_id) for one in part]
            found = await self._chunks.get(keys)
            visible += [(one, found[key]) for one, key in zip(part, keys, strict=True) if key in found]
            if len(visible) >= EXAMINED and len({row.chunk.text for _, row in visible}) >= limit:
                break
        return visible

    async def _get_chunks(self, keys: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Found]:
        """The visible ones, by collection and chunk id."""
        wanted: dict[str, list[str]] = {}
        for collection_id, chunk_id in keys:
            wanted.setdefault(collection_id, []).append(chunk_id)
        visible: dict[tuple[str, str], Found] = {}
        for collection_id, chunk_ids in wanted.items():
            found = await self._ledger.get_chunks(collection_id, chunk_ids)
            visible |= {(collection_id, chunk_id): one for chunk_id, one in found.items()}
        return visible

    def _weigh(self, question: _Question, visible: Sequence[tuple[Ranked, Found]]) -> list[Hit]:
        chunks = [found.chunk for _, found in visible[:EXAMINED]]
        evidence = self._examiner.examine(question.text, chunks) if question.mode == "fused" else []
        by_id = {found.chunk.id: found for _, found in visible}
        scored = score([one for one, _ in visible], evidence)
        return [_hit(by_id[one.chunk_id], points, one) for points, one in scored]


def known_share(embedder: Embedder, query: str) -> float:
    """The share of the question's tokens that the embedding model's vocabulary has: 0 none, 1 all."""
    tokens = embedder.tokenizer.encode(query, add_special_tokens=False).tokens
    unknown = sum(token in UNKNOWN_TOKENS for token in tokens)
    return 1 - unknown / max(len(tokens), 1)


def _hit(found: Found, points: float, one: Candidate) -> Hit:
    return Hit(
        chunk=found.chunk,
        document_name=found.document_name,
        score=round(points, 6),
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
