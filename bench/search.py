"""Hybrid search in the index: latency, throughput and recall against exact search, with made-up chunks.

    python bench/search.py [--quick] [--sizes 10k,100k,1m] [--json]

Vectors are drawn around some hundred centres on a 384-dimensional sphere (real embeddings cluster; uniform ones are
hard for no good reason), texts from a Zipf-distributed vocabulary. A question is a chunk's vector with noise and eight
of its words. Reported per engine and size: `p50_ms`, `p95_ms` and
`cpu_ms` one by one, `qps8` with eight in flight, `recall_at_10` of the dense lane against brute force,
`filtered_p50_ms` with a filter that lets a tenth through, `fresh_p50_ms` of searches that come right after a write,
`insert_per_s` (with analysis, in commits of 2,000) and `optimise_s`. Chroma cannot rank by words: it is asked for
vectors alone, which is the smaller half of the work.
"""

import argparse
import asyncio
import importlib.util
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, StoresOptions, open_index

Vectors = NDArray[np.float32]

DIMENSIONS = 384
CENTRES = 200
WORDS_A_CHUNK = 90
VOCABULARY = 30_000
QUESTIONS = 200
BATCH = 2_000
K = 100
FRESH = 20
FRESH_ROWS = 20
REPEATS = 3
MEMORY_MB = 8_192
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    name: str
    scheme: str
    package: str = ""
    words: bool = True
    most_rows: int = 1_000_000


ENGINES = (
    Engine(name="lancedb", scheme="lancedb"),
    Engine(name="chroma", scheme="chroma+local", package="chromadb", words=False, most_rows=100_000),
)


@dataclass(frozen=True, slots=True)
class Corpus:
    vectors: Vectors
    words: NDArray[np.int32]


def make_corpus(rows: int, seed: int = 7) -> Corpus:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CENTRES, DIMENSIONS)).astype(np.float32)
    vectors = centres[rng.integers(CENTRES, size=rows)] + 1.2 * rng.normal(size=(rows, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = 1 / np.arange(10, VOCABULARY + 10)
    words = rng.choice(VOCABULARY, size=(rows, WORDS_A_CHUNK), p=weights / weights.sum()).astype(np.int32)
    return Corpus(vectors.astype(np.float32), words)


def text_of(words: NDArray[np.int32]) -> str:
    return " ".join(f"word{number}" for number in words.tolist())


def chunks(corpus: Corpus, numbers: range) -> list[IndexRow]:
    return [
        IndexRow(
            chunk_id=f"chk_{i:09d}",
            document_id=f"doc_{i // 10:08d}",
            version_id=f"ver_{i // 10:08d}",
            text=text_of(corpus.words[i]),
            vector=corpus.vectors[i],
            metadata={"shelf": i // 10 % 10, "year": 1990 + i // 10 % 30},
        )
        for i in numbers
    ]


def rows_of(corpus: Corpus) -> Iterator[list[IndexRow]]:
    rows = len(corpus.vectors)
    return (chunks(corpus, range(start, min(start + BATCH, rows))) for start in range(0, rows, BATCH))


def make_questions(corpus: Corpus, *, words: bool = True, seed: int = 11) -> list[IndexQuery]:
    rng = np.random.default_rng(seed)
    questions = []
    for source in rng.integers(len(corpus.vectors), size=QUESTIONS):
        vector = corpus.vectors[source] + rng.normal(size=DIMENSIONS).astype(np.float32) / 30
        text = text_of(rng.choice(corpus.words[source], size=8))
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        questions.append(IndexQuery(k=K, vector=unit, text=text if words else None))
    return questions


async def timed(index: IndexStore, questions: Sequence[IndexQuery]) -> list[float]:
    """Milliseconds of each question, one by one."""
    took = []
    for question in questions:
        started = time.perf_counter()
        await index.search("bench", question)
        took.append((time.perf_counter() - started) * 1000)
    return took


async def timed_after_writes(index: IndexStore, corpus: Corpus, questions: Sequence[IndexQuery]) -> list[float]:
    """Milliseconds of questions each of which comes right after some rows were written over."""
    took = []
    for question, start in zip(questions[:FRESH], range(0, FRESH * FRESH_ROWS, FRESH_ROWS), strict=True):
        await index.upsert("bench", chunks(corpus, range(start, start + FRESH_ROWS)))
        took += await timed(index, [question])
    return took


async def per_second(index: IndexStore, questions: Sequence[IndexQuery], in_flight: int = 8) -> float:
    waiting = iter(questions)

    async def ask() -> None:
        for question in waiting:
            await index.search("bench", question)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(ask())
    return len(questions) / (time.perf_counter() - started)


async def recall(index: IndexStore, corpus: Corpus, questions: Sequence[IndexQuery]) -> float:
    """Of the ten nearest by brute force, the share among the dense lane's ten nearest."""
    found = 0
    for question in questions:
        assert question.vector is not None
        exact = np.argpartition(-(corpus.vectors @ question.vector), 10)[:10]
        hits = await index.search("bench", IndexQuery(k=10, vector=question.vector))
        found += len({f"chk_{i:09d}" for i in exact} & {one.chunk_id for one in hits.candidates})
    return found / (10 * len(questions))


async def measure(engine: Engine, url: str, rows: int) -> dict[str, float]:
    corpus = make_corpus(rows)
    questions = make_questions(corpus, words=engine.words)
    tenth = parse_filter({"shelf": 3})
    filtered = [replace(question, filter=tenth) for question in questions]
    async with open_index(url, StoresOptions(memory_mb=MEMORY_MB)) as index:
        await index.create("bench", DIMENSIONS)
        started = time.perf_counter()
        for batch in rows_of(corpus):
            await index.upsert("bench", batch)
        inserted = time.perf_counter()
        await index.optimise("bench")
        optimised = time.perf_counter()
        await timed(index, questions[:20])
        cpu = time.process_time()
        took = await timed(index, questions)
        cpu = time.process_time() - cpu
        took_filtered = await timed(index, filtered)
        fresh = await timed_after_writes(index, corpus, questions)
        return {
            "p50_ms": statistics.median(took),
            "p95_ms": statistics.quantiles(took, n=20)[-1],
            "cpu_ms": 1000 * cpu / len(questions),
            "qps8": await per_second(index, questions * REPEATS),
            "recall_at_10": await recall(index, corpus, questions[:100]),
            "filtered_p50_ms": statistics.median(took_filtered),
            "fresh_p50_ms": statistics.median(fresh),
            "insert_per_s": rows / (inserted - started),
            "optimise_s": optimised - inserted,
        }


async def run(sizes: Sequence[str]) -> dict[str, float]:
    report: dict[str, float] = {}
    for size, engine in itertools.product(sizes, ENGINES):
        if SIZES[size] > engine.most_rows or (engine.package and not importlib.util.find_spec(engine.package)):
            continue
        with TemporaryDirectory(prefix="penstock-bench-") as folder:
            figures = await measure(engine, f"{engine.scheme}://{folder}/index", SIZES[size])
        for name, value in figures.items():
            report[f"{engine.name}.{size}.{name}"] = round(value, 4)
        print(engine.name, size, *(f"{name} {value:.4g}" for name, value in figures.items()), file=sys.stderr)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 k chunks only: under a minute")
    parser.add_argument(
        "--sizes", default="10k,100k,1m", help="a million needs 12 GB of memory and a quarter of an hour"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one flat JSON object")
    options = parser.parse_args()
    report = asyncio.run(run(["10k"] if options.quick else options.sizes.split(",")))
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
