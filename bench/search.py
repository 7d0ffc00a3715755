"""Hybrid search in the index: latency, throughput and recall against exact search, with made-up chunks.

    python bench/search.py [--quick] [--million] [--json]

Vectors are drawn around some hundred centres on a 384-dimensional sphere (real embeddings cluster; uniform ones are
hard for no good reason), texts from a Zipf-distributed vocabulary. A question is a chunk's vector with noise and eight
of its words. Reported per size: `p50_ms` and `p95_ms` one by one, `qps8` with eight in flight, `recall_at_10` of the
dense lane, `filtered_p50_ms` with a filter that lets a tenth through, and `insert_per_s` (with analysis, in commits of
2,000).
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, open_index

Vectors = NDArray[np.float32]

DIMENSIONS = 384
CENTRES = 200
WORDS_A_CHUNK = 90
VOCABULARY = 30_000
QUESTIONS = 200
BATCH = 2_000
K = 100
SIZES = {"2k": 2_067, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}


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


def rows_of(corpus: Corpus) -> Iterator[list[IndexRow]]:
    for start in range(0, len(corpus.vectors), BATCH):
        yield [
            IndexRow(
                chunk_id=f"chk_{i:09d}",
                document_id=f"doc_{i // 10:08d}",
                version_id=f"ver_{i // 10:08d}",
                text=text_of(corpus.words[i]),
                vector=corpus.vectors[i],
                metadata={"shelf": i // 10 % 10, "year": 1990 + i // 10 % 30},
            )
            for i in range(start, min(start + BATCH, len(corpus.vectors)))
        ]


def make_questions(corpus: Corpus, seed: int = 11) -> list[IndexQuery]:
    rng = np.random.default_rng(seed)
    questions = []
    for source in rng.integers(len(corpus.vectors), size=QUESTIONS):
        vector = corpus.vectors[source] + rng.normal(size=DIMENSIONS).astype(np.float32) / 30
        text = text_of(rng.choice(corpus.words[source], size=8))
        questions.append(IndexQuery(k=K, vector=(vector / np.linalg.norm(vector)).astype(np.float32), text=text))
    return questions


async def timed(calls: Sequence[Callable[[], Awaitable[object]]]) -> list[float]:
    """Milliseconds of each call, one by one."""
    took = []
    for call in calls:
        started = time.perf_counter()
        await call()
        took.append((time.perf_counter() - started) * 1000)
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


async def measure(url: str, rows: int) -> dict[str, float]:
    corpus = make_corpus(rows)
    questions = make_questions(corpus)
    tenth = parse_filter({"shelf": 3})
    filtered = [IndexQuery(k=K, vector=q.vector, text=q.text, filter=tenth) for q in questions]
    async with open_index(url) as index:
        await index.create("bench", DIMENSIONS)
        started = time.perf_counter()
        for batch in rows_of(corpus):
            await index.upsert("bench", batch)
        inserted = time.perf_counter()
        await index.optimise("bench")
        optimised = time.perf_counter()
        await timed([lambda q=q: index.search("bench", q) for q in questions[:20]])  # type: ignore[misc]
        took = await timed([lambda q=q: index.search("bench", q) for q in questions])  # type: ignore[misc]
        took_filtered = await timed([lambda q=q: index.search("bench", q) for q in filtered])  # type: ignore[misc]
        return {
            "p50_ms": round(statistics.median(took), 2),
            "p95_ms": round(statistics.quantiles(took, n=20)[-1], 2),
            "qps8": round(await per_second(index, questions), 1),
            "recall_at_10": round(await recall(index, corpus, questions[:100]), 4),
            "filtered_p50_ms": round(statistics.median(took_filtered), 2),
            "insert_per_s": round(rows / (inserted - started), 1),
            "optimise_s": round(optimised - inserted, 2),
        }


async def run(sizes: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    report: dict[str, dict[str, float]] = {}
    for name in sizes:
        with TemporaryDirectory(prefix="penstock-bench-") as folder:
            report[name] = await measure(f"lancedb://{folder}", SIZES[name])
        print(f"lancedb {name}: {report[name]}", file=sys.stderr)
    return {"lancedb": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 k and 10 k chunks only: under a minute")
    parser.add_argument("--million", action="store_true", help="also a million chunks: needs 8 GB of disk and minutes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    sizes = ["2k", "10k"] if options.quick else ["2k", "10k", "100k", *(["1m"] if options.million else [])]
    report = asyncio.run(run(sizes))
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
