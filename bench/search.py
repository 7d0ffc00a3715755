"""Hybrid search in the index: latency, throughput and recall against exact search.

    python bench/search.py [--quick] [--sizes 10k,100k,1m] [--json] [--data FOLDER] [--search-threads N]

Chunks are made from real passages and their embeddings, questions are real (see `search_corpus`). Per engine and size:

- `p50_ms`, `p95_ms`, `cpu_ms` (all threads of the process) of questions one by one, after `optimise`;
- `qps8`, `cpu8_ms` with eight in flight;
- `recall_at_10` of the dense lane against brute force;
- `filtered_p50_ms` with a filter that lets a tenth through;
- `added_p50_ms`, `added_cpu_ms` of searches that each come right after 20 new chunks, as while documents come in;
  `fresh_p50_ms` when the 20 were written over;
- `insert_per_s` (with analysis, without embedding), `optimise_s` (the copy in memory included), `memory_mb`: by how
  much the process grew for the index;
- of LanceDB also `disk_p50_ms` and `disk_recall_at_10`: the same collection where `stores.memory_mb` has no room for
  it. (The other figures are taken with `memory_mb` = 8,192, for a million chunks; the default has room for 540,000.)

Chroma cannot rank by words: it is asked for vectors alone, which is the smaller half of the work.
"""

import argparse
import asyncio
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from penstock.filters import parse_filter
from penstock.stores import IndexQuery, IndexRow, IndexStore, StoresOptions, open_index
from search_corpus import DATA, Corpus, Seed, make_corpus, make_seed

Vectors = NDArray[np.float32]

PASSAGES = 4_000
QUICK_PASSAGES = 800
BATCH = 2_000
LARGE_BATCH = 10_000
LARGE = 200_000
K = 100
FRESH = 20
FRESH_ROWS = 20
REPEATS = 3
JUDGED = 100
MEMORY_MB = 8_192
COLUMNS = ("p50_ms", "p95_ms", "qps8", "recall_at_10", "filtered_p50_ms")
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    name: str
    scheme: str
    package: str = ""
    words: bool = True
    disk: bool = False
    most_rows: int = 1_000_000


ENGINES = (
    Engine(name="lancedb", scheme="lancedb", disk=True),
    Engine(name="chroma", scheme="chroma+local", package="chromadb", words=False, most_rows=100_000),
)


def batches(corpus: Corpus, rows: int) -> Iterator[list[IndexRow]]:
    size = LARGE_BATCH if rows > LARGE else BATCH
    return (corpus.chunks(range(start, min(start + size, rows))) for start in range(0, rows, size))


def make_questions(seed: Seed, *, words: bool = True) -> list[IndexQuery]:
    return [
        IndexQuery(k=K, vector=vector, text=text if words else None)
        for text, vector in zip(seed.questions, seed.asked, strict=True)
    ]


async def timed(index: IndexStore, questions: Sequence[IndexQuery]) -> list[float]:
    """Milliseconds of each question, one by one."""
    took = []
    for question in questions:
        started = time.perf_counter()
        await index.search("bench", question)
        took.append((time.perf_counter() - started) * 1000)
    return took


async def timed_after_writes(
    index: IndexStore, corpus: Corpus, questions: Sequence[IndexQuery], first: int
) -> tuple[list[float], float]:
    """Milliseconds of questions each of which comes right after some rows were written, and their processor time."""
    took, cpu = [], 0.0
    for number, question in enumerate(questions[:FRESH]):
        start = first + number * FRESH_ROWS
        await index.upsert("bench", corpus.chunks(range(start, start + FRESH_ROWS)))
        before = time.process_time()
        took += await timed(index, [question])
        cpu += time.process_time() - before
    return took, 1000 * cpu / len(took)


async def per_second(index: IndexStore, questions: Sequence[IndexQuery], in_flight: int = 8) -> tuple[float, float]:
    """Questions a second, and milliseconds of processor time of each."""
    waiting = iter(questions)

    async def ask() -> None:
        for question in waiting:
            await index.search("bench", question)

    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(ask())
    cpu = time.process_time() - cpu
    return len(questions) / (time.perf_counter() - started), 1000 * cpu / len(questions)


def nearest_exactly(vectors: Vectors, questions: Sequence[IndexQuery]) -> list[set[str]]:
    """The ten nearest chunks of each question, by brute force."""
    found = []
    for question in questions:
        assert question.vector is not None
        best = np.argpartition(-np.vecdot(vectors, question.vector), 10)[:10]
        found.append({f"chk_{i:09d}" for i in best})
    return found


async def recall(index: IndexStore, questions: Sequence[IndexQuery], exact: Sequence[set[str]]) -> float:
    """Of the ten nearest by brute force, the share among the dense lane's ten nearest."""
    found = 0
    for question, nearest in zip(questions, exact, strict=False):
        hits = await index.search("bench", IndexQuery(k=10, vector=question.vector))
        found += len(nearest & {one.chunk_id for one in hits.candidates})
    return found / (10 * len(exact))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def fill(index: IndexStore, corpus: Corpus, rows: int) -> dict[str, float]:
    await index.create("bench", corpus.vectors.shape[1])
    before, started = resident_mb(), time.perf_counter()
    for batch in batches(corpus, rows):
        await index.upsert("bench", batch)
    inserted = time.perf_counter()
    await index.optimise("bench")
    return {
        "insert_per_s": rows / (inserted - started),
        "optimise_s": time.perf_counter() - inserted,
        "memory_mb": resident_mb() - before,
    }


async def measure(engine: Engine, url: str, seed: Seed, rows: int, options: StoresOptions) -> dict[str, float]:
    corpus = make_corpus(seed, rows + FRESH * FRESH_ROWS)
    questions = make_questions(seed, words=engine.words)
    exact = nearest_exactly(corpus.vectors[:rows], questions[:JUDGED])
    async with open_index(url, options) as index:
        filled = await fill(index, corpus, rows)
        await timed(index, questions[:20])
        cpu = time.process_time()
        took = await timed(index, questions)
        cpu = time.process_time() - cpu
        tenth = parse_filter({"shelf": 3})
        took_filtered = await timed(index, [replace(question, filter=tenth) for question in questions])
        qps8, cpu8_ms = await per_second(index, questions * REPEATS)
        figures = {
            "p50_ms": statistics.median(took),
            "p95_ms": statistics.quantiles(took, n=20)[-1],
            "cpu_ms": 1000 * cpu / len(questions),
            "qps8": qps8,
            "cpu8_ms": cpu8_ms,
            "recall_at_10": await recall(index, questions, exact),
            "filtered_p50_ms": statistics.median(took_filtered),
        }
    if engine.disk:
        figures |= await measure_disk(url, questions, exact)
    async with open_index(url, options) as index:
        await index.optimise("bench")
        fresh, _ = await timed_after_writes(index, corpus, questions, 0)
        added, added_cpu_ms = await timed_after_writes(index, corpus, questions, rows)
        written = {"fresh_p50_ms": statistics.median(fresh), "added_p50_ms": statistics.median(added)}
    return figures | written | {"added_cpu_ms": added_cpu_ms} | filled


async def measure_disk(url: str, questions: Sequence[IndexQuery], exact: Sequence[set[str]]) -> dict[str, float]:
    """Without a copy in memory."""
    async with open_index(url, StoresOptions(memory_mb=0)) as index:
        await timed(index, questions[:20])
        return {
            "disk_p50_ms": statistics.median(await timed(index, questions)),
            "disk_recall_at_10": await recall(index, questions, exact),
        }


async def run(sizes: Sequence[str], seed: Seed, options: StoresOptions) -> dict[str, float]:
    report: dict[str, float] = {}
    for size, engine in itertools.product(sizes, ENGINES):
        if SIZES[size] > engine.most_rows or (engine.package and not importlib.util.find_spec(engine.package)):
            continue
        with TemporaryDirectory(prefix="penstock-bench-") as folder:
            figures = await measure(engine, f"{engine.scheme}://{folder}/index", seed, SIZES[size], options)
        for name, value in figures.items():
            report[f"{engine.name}.{size}.{name}"] = round(value, 4)
        print(engine.name, size, *(f"{name} {value:.4g}" for name, value in figures.items()), file=sys.stderr)
    return report


def print_table(report: Mapping[str, float]) -> None:
    """A row for each engine and size."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in report.items():
        place, _, name = key.rpartition(".")
        rows.setdefault(place, {})[name] = value
    print(f"{'':14}" + "".join(f"{column:>16}" for column in COLUMNS))
    for place, row in rows.items():
        print(f"{place:14}" + "".join(f"{row.get(column, float('nan')):16,.3f}" for column in COLUMNS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 k chunks only: under a minute")
    parser.add_argument(
        "--sizes", default="10k,100k,1m", help="a million needs 12 GB of memory and a quarter of an hour"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="where `load-en` and `squad-dev` are")
    parser.add_argument("--search-threads", type=int, default=2, help="`stores.search_threads`")
    parser.add_argument("--json", action="store_true", help="print the figures as one flat JSON object")
    options = parser.parse_args()
    seed = make_seed(options.data, QUICK_PASSAGES if options.quick else PASSAGES)
    stores = StoresOptions(memory_mb=MEMORY_MB, search_threads=options.search_threads)
    report = asyncio.run(run(["10k"] if options.quick else options.sizes.split(","), seed, stores))
    if options.json:
        print(json.dumps(report))
    else:
        print_table(report)


if __name__ == "__main__":
    main()
