"""Full-text search for engines that have none: BM25 in this process's memory, filled from the engine's rows."""

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.stores.bm25 import Postings
from penstock.stores.records import Record
from penstock.stores.where import Where, holds

FRESH_S = 60.0


@dataclass(slots=True)
class _Texts:
    """One collection's. `keys` and metadata by chunk id."""

    loaded_at: float
    postings: Postings = field(default_factory=Postings)
    rows: dict[str, tuple[frozenset[int], str]] = field(default_factory=dict)

    def put(self, records: Sequence[Record]) -> None:
        for record in records:
            self.postings.add(record.chunk_id, record.terms)
            self.rows[record.chunk_id] = (frozenset(record.keys), record.metadata)


class SideText:
    """Holds the terms of the collections that were searched. Not safe to share between threads."""

    def __init__(self) -> None:
        self._texts: dict[str, _Texts] = {}

    def is_current(self, collection_id: str, rows: int) -> bool:
        """Whether it holds as many rows as the engine, and no other process can have exchanged one long since."""
        texts = self._texts.get(collection_id)
        return texts is not None and len(texts.rows) == rows and time.monotonic() - texts.loaded_at < FRESH_S

    def load(self, collection_id: str, records: Sequence[Record]) -> None:
        """Takes these rows for all there are."""
        texts = self._texts[collection_id] = _Texts(time.monotonic())
        texts.put(records)

    def put(self, collection_id: str, records: Sequence[Record]) -> None:
        if collection_id in self._texts:
            self._texts[collection_id].put(records)

    def remove(self, collection_id: str, where: Where) -> None:
        texts = self._texts.get(collection_id)
        if texts is None:
            return
        for chunk_id in [one for one, (keys, _) in texts.rows.items() if holds(where, keys, one)]:
            texts.postings.remove(chunk_id)
            del texts.rows[chunk_id]

    def forget(self, collection_id: str) -> None:
        self._texts.pop(collection_id, None)

    def best(
        self, collection_id: str, terms: Sequence[str], k: int, where: Where | None
    ) -> list[tuple[str, str, float]]:
        """The best by BM25 among those that pass, best first: chunk id, metadata, score."""
        texts = self._texts.get(collection_id)
        if texts is None:
            return []
        scores = texts.postings.scores(terms)
        passing = [one for one in scores if holds(where, texts.rows[one][0], one)]
        return [(one, texts.rows[one][1], scores[one]) for one in heapq.nlargest(k, passing, key=scores.__getitem__)]
