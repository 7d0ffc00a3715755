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
import hashlib
import json
import statistics
import sys
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from penstock.ids import chunk_id, new_id
from penstock.ledger import open_ledger
from penstock.ledger.base import Ledger, NewVersion
from penstock.models.base import Embedder, Lane, Role
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.pipeline.answer import Answerer
from penstock.pipeline.beir import BeirFolder, JudgedQuery, Passage
from penstock.pipeline.chunking.chunker import Chunker
from penstock.pipeline.parsing.records import ParsedDocument
from penstock.pipeline.passages import passage_text
from penstock.pipeline.retrieve import Retriever
from penstock.stores import IndexRow, IndexStore, open_index
from penstock.types import DEFAULT_TENANT, Chunk, CollectionOptions, Document, Hit

LIMIT = 8
DEFAULT_FOLDERS = ("squad-dev", "cmrc-drcd-zh")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the article (the title of its relevant passage) that answers it."""

    query: JudgedQuery
    article: str


class Bench:
    """Ledger, index and retriever as a worker has them."""

    def __init__(self, ledger: Ledger, index: IndexStore, pool: ModelPool) -> None:
        self.ledger = ledger
        self.index = index
        self.pool = pool
        self.retriever = Retriever(ledger, index, pool)


class Corpus:
    """One folder as a collection."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.name = folder.name
        self._bench = bench
        self._folder = BeirFolder(folder)

    async def fill(self, passages: int | None) -> None:
        bench, options = self._bench, CollectionOptions()
        embedder = await bench.pool.embedder("default")
        tokens = min(options.chunk_tokens, embedder.info.max_tokens)
        chunker = Chunker(embedder.tokenizer, tokens, options.chunk_overlap)
        self.collection = await bench.ledger.create_collection(DEFAULT_TENANT, self.name, options)
        await bench.index.create(self.collection.id, embedder.info.dimensions)
        corpus = list(self._folder.passages())[:passages]
        self._titles = {passage.id: passage.title for passage in corpus}
        for batch in batches(corpus, 256):
            await self._add(batch, chunker, embedder)
        await bench.index.optimise(self.collection.id)

    async def _add(self, batch: Sequence[Passage], chunker: Chunker, embedder: Embedder) -> None:
        versions = [
            NewVersion(
                name=passage.id,
                sha256=hashlib.sha256(passage.id.encode()).hexdigest(),
                size_bytes=len(passage.text.encode()),
                media_type="text/plain",
                job_id=new_id("job"),
                metadata={"article": passage.title},
            )
            for passage in batch
        ]
        accepted = await self._bench.ledger.accept(DEFAULT_TENANT, self.name, versions)
        cuts = [cut(passage, one.document, chunker) for passage, one in zip(batch, accepted, strict=True)]
        chunks = [chunk for chunks in cuts for chunk in chunks]
        texts = [passage_text(chunk) for chunk in chunks]
        vectors = await embedder.embed(texts, role=Role.PASSAGE, lane=Lane.BULK)
        rows = [
            IndexRow(
                chunk_id=chunk.id,
                document_id=chunk.document_id,
                version_id=chunk.version_id,
                text=text,
                vector=vector,
                metadata={"article": chunk.headings[0]},
            )
            for chunk, text, vector in zip(chunks, texts, vectors, strict=True)
        ]
        await self._bench.index.upsert(self.collection.id, rows)
        for version, own in zip(accepted, cuts, strict=True):
            await self._bench.ledger.finish_version(version.document.version_id, own, pages=0)

    def questions(self, n: int, *, parity: int = 1) -> list[Asked]:
        """`n` odd-numbered questions (even: `parity` 0), evenly spread, whose passages are there."""
        there = [query for query in self._folder.queries()[parity::2] if set(query.relevant) <= set(self._titles)]
        chosen = there[:: max(1, len(there) // n)][:n]
        return [Asked(query, self._titles[next(iter(query.relevant))]) for query in chosen]

    async def hits(self, asked: Asked, *, without: str | None = None) -> Sequence[Hit]:
        where = {"article": {"ne": without}} if without is not None else None
        found = await self._bench.retriever.retrieve(self.collection, asked.query.text, limit=LIMIT, filter=where)
        return found.hits


async def measure(corpus: Corpus, own: Sequence[Asked], foreign: Sequence[Asked]) -> dict[str, float]:
    answerer = Answerer()
    first, any_quote, found, spent = [], [], [], []
    for asked in own:
        hits = await corpus.hits(asked)
        started = time.process_time()
        answer = await answerer.answer(asked.query.text, hits)
        spent.append((time.process_time() - started) * 1000)
        right = [has_answer(citation.quote, asked.query.answers) for citation in answer.citations]
        first.append(any(right[:1]))
        any_quote.append(any(right))
        found.append(answer.found)
    held_out = [
        await answerer.answer(asked.query.text, await corpus.hits(asked, without=asked.article)) for asked in own
    ]
    strange = [await answerer.answer(asked.query.text, await corpus.hits(asked)) for asked in foreign]
    return {
        "questions": len(own),
        "answered_1": statistics.mean(first),
        "answered": statistics.mean(any_quote),
        "missed": 1 - statistics.mean(found),
        "false_held_out": statistics.mean(answer.found for answer in held_out),
        "false_foreign": statistics.mean(answer.found for answer in strange) if strange else 0.0,
        "answer_p50_ms": statistics.median(spent),
    }


def cut(passage: Passage, document: Document, chunker: Chunker) -> list[Chunk]:
    pieces = chunker.chunk(ParsedDocument(text=passage.text, media_type="text/plain"), CollectionOptions().chunker)
    return [
        Chunk(
            id=chunk_id(document.version_id, position),
            document_id=document.id,
            version_id=document.version_id,
            collection_id=document.collection_id,
            position=position,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            tokens=piece.tokens,
            headings=(passage.title,),
        )
        for position, piece in enumerate(pieces)
    ]


def has_answer(quote: str, answers: Sequence[str]) -> bool:
    return any(plain(answer) in plain(quote) for answer in answers)


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def batches(items: Sequence[Passage], size: int) -> Iterator[Sequence[Passage]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@asynccontextmanager
async def open_bench() -> AsyncIterator[Bench]:
    with TemporaryDirectory(prefix="penstock-answers-") as place:
        async with (
            ModelPool(ModelsOptions()) as pool,
            open_ledger("memory://") as ledger,
            open_index(f"lancedb://{place}") as index,
        ):
            yield Bench(ledger, index, pool)


async def run(folders: Sequence[Path], *, passages: int | None, questions: int) -> dict[str, dict[str, float]]:
    async with open_bench() as bench:
        corpora = [Corpus(bench, folder) for folder in folders]
        for corpus in corpora:
            await corpus.fill(passages)
        asked = {corpus.name: corpus.questions(questions) for corpus in corpora}
        return {
            corpus.name: await measure(
                corpus,
                asked[corpus.name],
                [one for name, own in asked.items() if name != corpus.name for one in own[::2]],
            )
            for corpus in corpora
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
    size = {"passages": 300, "questions": 100} if options.quick else {"passages": None, "questions": 300}
    results = asyncio.run(run(folders, **size))
    if options.json:
        print(json.dumps({name: {k: round(v, 4) for k, v in result.items()} for name, result in results.items()}))
        return
    for name, result in results.items():
        print(f"{name}: " + "  ".join(f"{key} {value:.3f}" for key, value in result.items()))


if __name__ == "__main__":
    main()
