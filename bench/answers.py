"""How good extractive answers are, and how honest: over test collections in BEIR's layout with known answers.

    python bench/answers.py [FOLDER …] [--quick] [--json] [--data FOLDER]

Each folder's passages are indexed as documents are. Then three kinds of questions are put to it:

- answerable: its own. `answered_1` and `answered` are the shares of which the first quote, or one of all quotes, has an
  answer string; `missed` the share that is answered with "not found".
- held out: its own, with the whole article hidden that would answer them. `false_held_out` is the share that is
  answered all the same.
- foreign: those of the other folders. `false_foreign` likewise.

The constants of `penstock.pipeline.extractive` were chosen on even-numbered questions; what is printed is measured on
the odd-numbered ones. `answer_p50_ms` is the CPU time of finding the quotes in eight passages.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from penstock.filters import parse_filter
from penstock.models.base import Embedder, Lane, Role
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.pipeline.answer import Answerer
from penstock.pipeline.beir import BeirFolder, JudgedQuery, Passage
from penstock.pipeline.chunking.chunker import Chunker
from penstock.pipeline.fusion import fuse
from penstock.pipeline.parsing.records import ParsedDocument
from penstock.pipeline.passages import passage_text
from penstock.pipeline.retrieve import known_share
from penstock.stores import IndexQuery, IndexRow, IndexStore, open_index
from penstock.stores.base import Vector
from penstock.types import Chunk, CollectionOptions, Hit

LIMIT = 8
CANDIDATES = 100
DEFAULT_FOLDERS = ("squad-dev", "cmrc-drcd-zh")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, its vector, and the article (the title of its relevant passage) that answers it."""

    query: JudgedQuery
    vector: Vector
    article: str


class Collection:
    """One folder in an index of its own."""

    def __init__(self, folder: Path, index: IndexStore, embedder: Embedder) -> None:
        self.name = folder.name
        self._folder = BeirFolder(folder)
        self._index = index
        self._embedder = embedder
        self._chunks: dict[str, Chunk] = {}

    async def fill(self, passages: int | None) -> None:
        info = self._embedder.info
        options = CollectionOptions()
        chunker = Chunker(self._embedder.tokenizer, min(options.chunk_tokens, info.max_tokens), options.chunk_overlap)
        corpus = list(self._folder.passages())[:passages]
        self._titles = {passage.id: passage.title for passage in corpus}
        await self._index.create(self.name, info.dimensions)
        for batch in batches(corpus, 256):
            chunks = [chunk for passage in batch for chunk in cut(passage, chunker, options.chunker)]
            self._chunks.update((chunk.id, chunk) for chunk in chunks)
            texts = [passage_text(chunk) for chunk in chunks]
            vectors = await self._embedder.embed(texts, role=Role.PASSAGE, lane=Lane.BULK)
            await self._index.upsert(
                self.name,
                [
                    IndexRow(
                        chunk_id=chunk.id,
                        document_id=chunk.document_id,
                        version_id=chunk.document_id,
                        text=text,
                        vector=vector,
                        metadata={"article": chunk.headings[0]},
                    )
                    for chunk, text, vector in zip(chunks, texts, vectors, strict=True)
                ],
            )
        await self._index.optimise(self.name)

    async def questions(self, n: int) -> list[Asked]:
        """`n` odd-numbered questions, evenly spread, whose passages are there."""
        there = [query for query in self._folder.queries()[1::2] if set(query.relevant) <= set(self._titles)]
        chosen = there[:: max(1, len(there) // n)][:n]
        vectors = await self._embedder.embed([query.text for query in chosen], role=Role.QUERY, lane=Lane.BULK)
        return [
            Asked(query, vector, self._titles[next(iter(query.relevant))])
            for query, vector in zip(chosen, vectors, strict=True)
        ]

    async def hits(self, asked: Asked, *, without: str | None = None) -> list[Hit]:
        hidden = parse_filter({"article": {"ne": without}} if without is not None else None)
        text = asked.query.text
        found = await self._index.search(
            self.name, IndexQuery(k=CANDIDATES, vector=asked.vector, text=text, filter=hidden)
        )
        ranked = fuse(found, known=known_share(self._embedder, text))[:LIMIT]
        return [
            Hit(chunk=self._chunks[one.chunk_id], document_name=self.name, score=score, dense_score=one.dense)
            for score, one in ranked
        ]


async def measure(collection: Collection, own: Sequence[Asked], foreign: Sequence[Asked]) -> dict[str, float]:
    answerer = Answerer()
    first, any_quote, found, spent = [], [], [], []
    for asked in own:
        hits = await collection.hits(asked)
        started = time.process_time()
        answer = await answerer.answer(asked.query.text, hits)
        spent.append((time.process_time() - started) * 1000)
        right = [has_answer(citation.quote, asked.query.answers) for citation in answer.citations]
        first.append(any(right[:1]))
        any_quote.append(any(right))
        found.append(answer.found)
    held_out = [
        await answerer.answer(asked.query.text, await collection.hits(asked, without=asked.article)) for asked in own
    ]
    strange = [await answerer.answer(asked.query.text, await collection.hits(asked)) for asked in foreign]
    return {
        "questions": len(own),
        "answered_1": statistics.mean(first),
        "answered": statistics.mean(any_quote),
        "missed": 1 - statistics.mean(found),
        "false_held_out": statistics.mean(answer.found for answer in held_out),
        "false_foreign": statistics.mean(answer.found for answer in strange) if strange else 0.0,
        "answer_p50_ms": statistics.median(spent),
    }


def cut(passage: Passage, chunker: Chunker, strategy: str) -> Iterator[Chunk]:
    parsed = ParsedDocument(text=passage.text, media_type="text/plain")
    for position, piece in enumerate(chunker.chunk(parsed, strategy)):
        yield Chunk(
            id=f"{passage.id}:{position}",
            document_id=passage.id,
            version_id=passage.id,
            collection_id="answers",
            position=position,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            tokens=piece.tokens,
            headings=(passage.title,),
        )


def has_answer(quote: str, answers: Sequence[str]) -> bool:
    return any(plain(answer) in plain(quote) for answer in answers)


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def batches(items: Sequence[Passage], size: int) -> Iterator[Sequence[Passage]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def run(folders: Sequence[Path], *, passages: int | None, questions: int) -> dict[str, dict[str, float]]:
    with TemporaryDirectory(prefix="penstock-answers-") as place:
        async with ModelPool(ModelsOptions()) as pool, open_index(f"lancedb://{place}") as index:
            embedder = await pool.embedder("default")
            collections = [Collection(folder, index, embedder) for folder in folders]
            for collection in collections:
                await collection.fill(passages)
            asked = [await collection.questions(questions) for collection in collections]
            return {
                collection.name: await measure(
                    collection, asked[i], [one for j, own in enumerate(asked) if j != i for one in own[::2]]
                )
                for i, collection in enumerate(collections)
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="the first 300 passages, 100 questions")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folders = options.folders or [options.data / name for name in DEFAULT_FOLDERS]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        print(f"Nothing measured: there is no {', '.join(missing)}. Name folders in BEIR's layout.", file=sys.stderr)
        return
    size = {"passages": 300, "questions": 100} if options.quick else {"passages": None, "questions": 500}
    results = asyncio.run(run(folders, **size))
    if options.json:
        print(json.dumps({name: {k: round(v, 4) for k, v in result.items()} for name, result in results.items()}))
        return
    for name, result in results.items():
        print(f"{name}: " + "  ".join(f"{key} {value:.3f}" for key, value in result.items()))


if __name__ == "__main__":
    main()
