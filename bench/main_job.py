"""The main job end to end, in one run: start, ingest and questions through the API, beside the raw embedding rate.

    python bench/main_job.py [--corpus DIR] [--quick] [--json]

DIR holds `corpus.jsonl` and `queries.jsonl` in BEIR's layout; each passage is uploaded as a document of its own.
Ingest and raw embedding alternate, so that a machine whose speed drifts does not favour either.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from penstock.client import AsyncClient, NewText
from penstock.models.bench import bench_embed
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.types import Answer, DocumentStatus

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "data" / "squad-dev"
BATCH = 100
COLLECTION = "corpus"
LOOK_EVERY_S = 0.2
"""Each look takes a millisecond or two of the processor that is being measured."""


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, float, dict[str, int]]]:
    """A `penstock serve` of its own: URL, seconds until ready, and its processes by role."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "penstock", "serve", "--data-dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            yield url, time.perf_counter() - started, children(process.pid)
        finally:
            process.terminate()


def children(parent: int) -> dict[str, int]:
    """Process ids by role; the standby does no work."""
    lines = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return {line.split()[4]: int(line.split()[0]) for line in lines if "--standby" not in line}


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def read(folder: Path, name: str, limit: int | None) -> list[dict[str, str]]:
    with (folder / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(limit or 10**9), strict=False)]


async def ingest(client: AsyncClient, collection: str, passages: list[dict[str, str]]) -> float:
    """Uploads each passage as a document, waits until all can be searched; documents a second."""
    await client.create_collection(collection)
    started = time.perf_counter()
    texts = [NewText(name=f"{one['_id']}.txt", text=one["text"]) for one in passages]
    for first in range(0, len(texts), BATCH):
        await client.add_texts(texts[first : first + BATCH], collection=collection)
    pending = [DocumentStatus.PENDING]
    while (await client.list_documents(collection=collection, statuses=pending, limit=1)).documents:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_EVERY_S)
    rate = len(passages) / (time.perf_counter() - started)
    found = await client.get_collection(collection)
    assert found.documents == len(passages), found
    return rate


async def raw_embedding(passages: list[dict[str, str]]) -> float:
    """Texts a second of the embedder alone, in a worker's own way (batcher, bulk lane)."""
    async with ModelPool(ModelsOptions()) as pool:
        await pool.preload()
        return (await bench_embed(pool, [one["text"] for one in passages])).texts_per_s


async def ask(client: AsyncClient, collection: str, questions: list[str]) -> tuple[list[float], list[Answer]]:
    """One after the other: milliseconds of each, and the answers."""
    took, answers = [], []
    for question in questions:
        started = time.perf_counter()
        answers.append(await client.ask(question, collection=collection))
        took.append((time.perf_counter() - started) * 1000)
    return took, answers


async def measure(corpus: Path, *, quick: bool) -> dict[str, float]:
    passages, queries = read(corpus, "corpus", 400 if quick else None), read(corpus, "queries", 60 if quick else 300)
    questions = [one["text"] for one in queries]
    figures: dict[str, float] = {}
    rates, raws = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for round_ in range(1 if quick else 3):
            raws.append(await asyncio.to_thread(run_raw, corpus, len(passages)))
            folder = Path(temporary, str(round_))  # a fresh one: nothing that was embedded before is in its cache
            with serve(folder) as (url, _, roles):
                await asyncio.sleep(2)  # what start-up left to do is done, and the memory is what an idle server holds
                figures["idle.api_mb"], figures["idle.worker_mb"] = rss_mb(roles["api"]), rss_mb(roles["worker"])
                async with AsyncClient(url) as client:
                    rates.append(await ingest(client, COLLECTION, passages))
                figures["ingested.worker_mb"] = rss_mb(roles["worker"])
        figures["ingest.documents_per_s"], figures["embed.texts_per_s"] = median(rates), median(raws)
        figures["ingest.over_embed"] = median(rate / raw for rate, raw in zip(rates, raws, strict=True))
        with serve(folder) as (url, ready_s, roles):
            figures["ready_s"] = ready_s
            async with AsyncClient(url) as client:
                await client.ready()  # the connection is there; the first question is the server's own time
                took, answers = await ask(client, COLLECTION, questions)
            figures["busy.api_mb"], figures["busy.worker_mb"] = rss_mb(roles["api"]), rss_mb(roles["worker"])
    totals = [answer.timings_ms["total"] - answer.timings_ms["queue_wait"] for answer in answers]
    figures["question.first_ms"], figures["question.tenth_ms"] = took[0], took[9]
    figures["question.p50_ms"], figures["question.p95_ms"] = median(took), quantiles(took, n=20)[-1]
    figures["question.job_layer_p50_ms"] = median(all_ - work for all_, work in zip(took, totals, strict=True))
    return figures


def run_raw(corpus: Path, count: int) -> float:
    """`raw_embedding` in a process of its own, as the worker is."""
    command = [sys.executable, __file__, "--corpus", str(corpus), "--raw", str(count)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help="400 passages, 60 questions, one round")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--raw", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.corpus.is_dir():
        parser.exit(0, f"skipped: needs a corpus in BEIR's layout (--corpus); {options.corpus} is not there\n")
    if options.raw:
        print(asyncio.run(raw_embedding(read(options.corpus, "corpus", options.raw))))
        return
    figures = asyncio.run(measure(options.corpus, quick=options.quick))
    if options.json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    else:
        print("\n".join(f"{name:28} {value:10.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
