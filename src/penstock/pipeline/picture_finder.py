"""Pictures of a collection that show what a question asks for, or look like the image that came with it.

A cosine in the space of a CLIP model becomes the probability that the picture is meant:

    by text    logistic(TEXT_SCALE · (cosine - bar)),  bar = max(TEXT_BAR, what luck would give in a large collection)
    by image   logistic(IMAGE_SCALE · (cosine - IMAGE_BAR))

TEXT_BAR lies between what CLIP models give to unrelated pairs (below 0.2) and the 0.28 to 0.3 from which the makers of
LAION-400M and LAION-5B took a picture and its text to belong together. Luck is the expected best of n random draws from
the distribution of this question's cosines, as in `fusion`. Of two photographs, unrelated ones have about 0.5.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from penstock.errors import InvalidInput, PenstockError
from penstock.filters import Filter
from penstock.ledger.base import Ledger
from penstock.models.base import Lane, Role
from penstock.models.pool import ModelPool
from penstock.stores.base import IndexQuery, IndexStore, LaneHits, Vector
from penstock.stores.places import pictures_place
from penstock.types import Collection, Hit

logger = logging.getLogger(__name__)

TEXT_SCALE, TEXT_BAR = 60.0, 0.25
IMAGE_SCALE, IMAGE_BAR = 15.0, 0.75
MANY_ROWS = 20
"""From so many pictures on, their cosines say what luck would give."""

CANDIDATES = 50
MAX_CANDIDATES = 800
WORTHY = 0.2
"""A picture below this is shown only where there is nothing else to show."""
SHARE = 3
"""One of so many hits may be a picture, where there are passages enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Hits, best first. `degraded`: the image model failed, and nobody looked."""

    hits: Sequence[Hit] = ()
    degraded: bool = False


class PictureFinder:
    """Only what the ledger says is visible is ever returned."""

    def __init__(self, ledger: Ledger, index: IndexStore, models: ModelPool) -> None:
        self._ledger = ledger
        self._index = index
        self._models = models

    async def find(
        self, collection: Collection, text: str, image: bytes | None, *, limit: int, where: Filter | None
    ) -> Pictures:
        """At most `limit` pictures; none in a collection without an image model. An image must be safe to decode.

        A question in words does without pictures when the model fails; an image alone raises what that raises.
        """
        model = collection.options.image_model
        if model is None:
            if image is not None and not text:
                raise InvalidInput(
                    f"The collection {collection.name!r} has no image model: its pictures cannot be searched. "
                    "Copy it into one that has (image_model)."
                )
            return Pictures()
        try:
            return Pictures(hits=await self._find(collection, model, text, image, limit, where))
        except PenstockError as exc:
            if not text:
                raise
            logger.warning("The pictures of %s were not searched: %s", collection.name, exc)
            return Pictures(degraded=True)

    async def _find(
        self, collection: Collection, model: str, text: str, image: bytes | None, limit: int, where: Filter | None
    ) -> Sequence[Hit]:
        embedder = await self._models.image_embedder(model)
        found: dict[str, Hit] = {}
        if text:
            [vector] = await embedder.embed([text], role=Role.QUERY, lane=Lane.INTERACTIVE)
            await self._collect(collection, vector, False, limit, where, found)
        if image is not None:
            [vector] = await embedder.embed_images([image], lane=Lane.INTERACTIVE)
            await self._collect(collection, vector, True, limit, where, found)
        return sorted(found.values(), key=lambda hit: (-hit.score, -(hit.image_score or 0), hit.chunk.id))[:limit]

    async def _collect(
        self,
        collection: Collection,
        vector: Vector,
        by_image: bool,
        limit: int,
        where: Filter | None,
        found: dict[str, Hit],
    ) -> None:
        """Adds the best visible ones, each with the better of its scores. Looks deeper where too many were replaced."""
        k = max(CANDIDATES, 2 * limit)
        place = pictures_place(collection.index_id or collection.id)
        while True:
            lane = await self._index.search(place, IndexQuery(k=k, vector=vector, filter=where))
            cosines = {one.chunk_id: one.dense or 0.0 for one in lane.candidates}
            visible = await self._ledger.get_chunks(collection.id, list(cosines))
            if len(visible) >= limit or len(cosines) < k or k >= MAX_CANDIDATES:
                break
            k *= 4
        bar = IMAGE_BAR if by_image else _bar(lane)
        scale = IMAGE_SCALE if by_image else TEXT_SCALE
        for chunk_id, one in visible.items():
            cosine = cosines[chunk_id]
            score = round(1 / (1 + math.exp(-scale * (cosine - bar))), 6)
            if chunk_id not in found or found[chunk_id].score < score:
                found[chunk_id] = Hit(
                    chunk=one.chunk,
                    document_name=one.document_name,
                    score=score,
                    image_score=cosine,
                    metadata=one.metadata,
                )


def _bar(lane: LaneHits) -> float:
    if lane.rows < MANY_ROWS:
        return TEXT_BAR
    luck = NormalDist().inv_cdf((lane.rows - 0.375) / (lane.rows + 0.25))
    return max(TEXT_BAR, lane.dense_mean + luck * lane.dense_std)


def blend(passages: Sequence[Hit], pictures: Sequence[Hit], limit: int) -> list[Hit]:
    """Both, best first, the passages in their order; of a picture and its caption the better one.

    Pictures take a part of the room at most, and only good ones any that a passage could have.
    """
    room = max(limit - len(passages), limit // SHARE, 1)
    worthy = [hit for hit in pictures if hit.score >= WORTHY][:room]
    rest = [hit for hit in pictures if hit.score < WORTHY]
    blended: list[Hit] = []
    for passage in passages:
        points = passage.score if passage.rerank_score is None else passage.rerank_score
        while worthy and worthy[0].score > points:
            blended.append(worthy.pop(0))
        blended.append(passage)
    return _once([*blended, *worthy, *rest])[:limit]


def _once(hits: Sequence[Hit]) -> list[Hit]:
    """A picture of a document once, be it itself or its caption; the first keeps what the second knew of it."""
    places: dict[tuple[str, int], int] = {}
    once: list[Hit] = []
    for hit in hits:
        key = (hit.chunk.version_id, hit.chunk.picture or 0)
        if hit.chunk.picture is None:
            once.append(hit)
        elif key in places:
            first = once[places[key]]
            if first.image_score is None:
                once[places[key]] = replace(first, image_score=hit.image_score)
        else:
            places[key] = len(once)
            once.append(hit)
    return once
