"""Measures retrieval on a test collection: each lane alone and both fused, through the code that answers questions.

Passages are cut, embedded and indexed as documents are (a passage's title is its heading), in an index of its own that
is thrown away. The rank of a passage is that of its best chunk.
"""

import asyncio
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias, TypeVar

from penstock.errors import InvalidInput
from penstock.models.base import Embedder, Lane, Role
from penstock.pipeline.beir import BeirFolder, JudgedQuery, Passage
from penstock.pipeline.chunking.chunker import Chunker
from penstock.pipeline.evidence import EXAMINED, Examiner
from penstock.pipeline.fusion import Mode, Ranked, fuse, score
from penstock.pipeline.metrics import CUT, Quality, mean, quality
from penstock.pipeline.parsing.records import ParsedDocument
from penstock.pipeline.passages import passage_text
from penstock.pipeline.retrieve import LANE_CANDIDATES, known_share
from penstock.stores import Candidate, IndexQuery, IndexRow, IndexStore, open_index
from penstock.stores.analyzer import Analyzer
from penstock.stores.base import Vector
from penstock.types import JSON, Chunk, CollectionOptions

T = TypeVar("T")
Report: TypeAlias = Callable[[str, int, int], None]
"""Takes a stage, how much of it is done, and of how many (0: not known)."""
Ranking: TypeAlias = Mapping[Mode, Sequence[str]]

MODES: tuple[Mode, ...] = ("dense", "fulltext", "fused")
COLLECTION = "evaluation"
PASSAGES_A_COMMIT = 512
QUERIES_A_BATCH = 256
SEARCHES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalReport:
    """`answer_in_top` is the share of questions with known answers that have one in the text of the first ten fused
    passages; None where the set has no answers. `held_out` counts the odd-numbered questions alone, with which the
    weights of the lanes were not chosen (see `fusion`)."""

    lanes: Mapping[Mode, Quality]
    held_out: Mapping[Mode, Quality]
    answer_in_top: float | None
    queries: int
    passages: int
    chunks: int

    def to_json(self) -> dict[str, JSON]:
        return {
            **{mode: self.lanes[mode].to_json() for mode in MODES},
            "answer_in_top": None if self.answer_in_top is None else round(self.answer_in_top, 4),
            "queries": self.queries,
            "passages": self.passages,
            "chunks": self.chunks,
            "held_out": {mode: self.held_out[mode].to_json() for mode in MODES},
        }


async def evaluate(
    folder: Path,
    embedder: Embedder,
    *,
    options: CollectionOptions | None = None,
    index_url: str = "",
    report: Report = lambda _stage, _done, _total: None,
) -> EvalReport:
    """Indexes the folder's corpus in a temporary place and asks all its questions that have relevant passages.

    The place is a LanceDB folder, or a collection in the index of `index_url`; it is taken away at the end.

    `InvalidInput` when the folder is not in BEIR's layout or no question can be judged.
    """
    collection = BeirFolder(folder)
    queries = collection.queries()
    if not queries:
        raise InvalidInput(f"No question of {folder} has a relevant passage, so there is nothing to measure")
    with TemporaryDirectory(prefix="penstock-eval-") as place:
        async with open_index(index_url or f"lancedb://{place}") as index:
            await index.drop(COLLECTION)  # of a run that was cut off
            run = _Run(collection, index, embedder, options or CollectionOptions(), report)
            passages, chunks = await run.fill()
            rankings = await run.ask(queries)
            await index.drop(COLLECTION)
    return _summary(collection, queries, rankings, passages, chunks)


class _Run:
    """One index, filled once and asked all questions."""

    def __init__(
        self,
        collection: BeirFolder,
        index: IndexStore,
        embedder: Embedder,
        options: CollectionOptions,
        report: Report,
    ) -> None:
        self._collection = collection
        self._index = index
        self._embedder = embedder
        self._options = options
        self._report = report
        self._in_flight = asyncio.Semaphore(SEARCHES_IN_FLIGHT)
        self._examiner = Examiner(Analyzer())
        self._places: dict[str, _Place] = {}

    async def fill(self) -> tuple[int, int]:
        """Returns the number of passages and of the chunks that they were cut into."""
        info, passages = self._embedder.info, 0
        tokens = min(self._options.chunk_tokens, info.max_tokens)
        chunker = Chunker(self._embedder.tokenizer, tokens, self._options.chunk_overlap)
        await self._index.create(COLLECTION, info.dimensions)
        with ThreadPoolExecutor(1, thread_name_prefix="penstock-eval") as cpu:
            for batch in _batches(self._collection.passages(), PASSAGES_A_COMMIT):
                cut = partial(_cut, batch, chunker, self._options.chunker)
                await self._write(await asyncio.get_running_loop().run_in_executor(cpu, cut))
                passages += len(batch)
                self._report("index", passages, 0)
        await self._index.optimise(COLLECTION)
        return passages, len(self._places)

    async def _write(self, chunks: Sequence[Chunk]) -> None:
        texts = [passage_text(chunk) for chunk in chunks]
        vectors = await self._embedder.embed(texts, role=Role.PASSAGE, lane=Lane.BULK)
        rows = [
            IndexRow(
                chunk_id=chunk.id,
                document_id=chunk.document_id,
                version_id=chunk.version_id,
                text=text,
                vector=vector,
            )
            for chunk, text, vector in zip(chunks, texts, vectors, strict=True)
        ]
        await self._index.upsert(COLLECTION, rows)
        self._places |= {
            chunk.id: _Place(chunk.document_id, chunk.position, chunk.start, chunk.end) for chunk in chunks
        }

    async def ask(self, queries: Sequence[JudgedQuery]) -> list[Ranking]:
        """The first ten passages in every mode, question by question."""
        rankings: list[Ranking] = []
        for batch in _batches(iter(queries), QUERIES_A_BATCH):
            texts = [query.text for query in batch]
            vectors = await self._embedder.embed(texts, role=Role.QUERY, lane=Lane.BULK)
            async with asyncio.TaskGroup() as group:
                pairs = zip(texts, vectors, strict=True)
                tasks = [group.create_task(self._search(text, vector)) for text, vector in pairs]
            rankings += [task.result() for task in tasks]
            self._report("search", len(rankings), len(queries))
        return rankings

    async def _search(self, text: str, vector: Vector) -> Ranking:
        async with self._in_flight:
            hits = await self._index.search(COLLECTION, IndexQuery(k=LANE_CANDIDATES, vector=vector, text=text))
        ranked = {mode: fuse(hits, mode=mode, known=known_share(self._embedder, text)) for mode in MODES}
        evidence = self._examiner.examine(text, self._read(ranked["fused"][:EXAMINED]))
        return {mode: self._passages(score(rows, evidence if mode == "fused" else ())) for mode, rows in ranked.items()}

    def _read(self, ranked: Sequence[Ranked]) -> list[Chunk]:
        places = [self._places[one.candidate.chunk_id] for one in ranked]
        passages = self._collection.read([place.document_id for place in places])
        return [place.of(passage) for place, passage in zip(places, passages, strict=True)]

    def _passages(self, scored: Sequence[tuple[float, Candidate]]) -> list[str]:
        return list(dict.fromkeys(self._places[one.chunk_id].document_id for _, one in scored))[:CUT]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chunk stands in its passage: the texts stay on the disk."""

    document_id: str
    position: int
    start: int
    end: int

    def of(self, passage: Passage) -> Chunk:
        return Chunk(
            id=f"{passage.id}:{self.position}",
            document_id=passage.id,
            version_id=passage.id,
            collection_id=COLLECTION,
            position=self.position,
            text=passage.text[self.start : self.end],
            start=self.start,
            end=self.end,
            tokens=0,
            headings=(passage.title,) if passage.title else (),
        )


def _cut(passages: Sequence[Passage], chunker: Chunker, strategy: str) -> list[Chunk]:
    return [
        _Place(passage.id, position, piece.start, piece.end).of(passage)
        for passage in passages
        for position, piece in enumerate(
            chunker.chunk(ParsedDocument(text=passage.text, media_type="text/plain"), strategy)
        )
    ]


def _summary(
    collection: BeirFolder, queries: Sequence[JudgedQuery], rankings: Sequence[Ranking], passages: int, chunks: int
) -> EvalReport:
    each = {
        mode: [quality(ranking[mode], query.relevant) for query, ranking in zip(queries, rankings, strict=True)]
        for mode in MODES
    }
    return EvalReport(
        lanes={mode: mean(qualities) for mode, qualities in each.items()},
        held_out={mode: mean(qualities[1::2]) for mode, qualities in each.items()},
        answer_in_top=_answer_in_top(collection, queries, rankings),
        queries=len(queries),
        passages=passages,
        chunks=chunks,
    )


def _answer_in_top(collection: BeirFolder, queries: Sequence[JudgedQuery], rankings: Sequence[Ranking]) -> float | None:
    found = [
        any(answer in text for text in _texts(collection, ranking["fused"]) for answer in answers)
        for query, ranking in zip(queries, rankings, strict=True)
        if (answers := [_plain(answer) for answer in query.answers])
    ]
    return sum(found) / len(found) if found else None


def _texts(collection: BeirFolder, ids: Sequence[str]) -> list[str]:
    return [_plain(f"{passage.title}\n{passage.text}") for passage in collection.read(ids)]


def _plain(text: str) -> str:
    """Without what must not decide whether two strings are the same: case, width, white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(items, size)):
        yield batch
