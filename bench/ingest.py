"""How fast folders become searchable through the real server, and what beside embedding takes the time.

    python bench/ingest.py [--quick] [--json] [--peer NAME] [--documents N] [--curve CHUNKS]

A fresh `penstock serve` for each part. `--data` is a folder with `load-en/corpus.jsonl` and `docs/good`.

- load: N passages of `load-en` as files, by `penstock ingest FOLDER`, between two runs of `penstock bench embed` over
  the same texts. `ratio.bench_embed` compares documents a second with texts a second; `ratio.bench_embed_cpu` the
  processor time that an embedded text takes with all that a document takes in all processes, which holds on a busy
  machine too. `share.*` parts the latter: `embed` is what the raw embedding took, `worker` what else the worker did.
- second run: the same command again; `second_run.speedup` is by the time on the clock, start of the command included.
- good: `docs/good`, 69 documents of 14 formats.
- curve: synthetic documents of some 20 passages of 32 tokens each, until there are `--curve` chunks; short ones, so
  that what grows with the collection shows beside the model. `last_over_first` compares the rate of the last twentieth
  (10,000 of 200,000) with the first's, `curve.cpu_last_over_first` does so by the processor time of all processes;
  `search.*` are searches one by one, before and during the curve's ingest.
- peer: LangChain or LlamaIndex in an environment of its own (build/ingest-peers, made by the first whole run; --quick
  goes without where there is none) on the same files, with the same model and chunk size, sentence-transformers on
  torch's CPU build.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ingest_server import Server, running
from penstock.cli.ingestion import Ingestion
from penstock.client import AsyncClient, NewFile
from penstock.errors import PenstockError
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.weights import find_model
from penstock.types import CollectionOptions

DATA = Path(__file__).parents[2] / "shared" / "data"
PEERS_HOME = Path(__file__).parents[1] / "build" / "ingest-peers"
REQUIREMENTS = {
    "llamaindex": ("llama-index-core", "llama-index-embeddings-huggingface"),
    "langchain": ("langchain-text-splitters", "langchain-community", "langchain-huggingface", "langchain-chroma"),
}
COMMON = ("torch==2.13.0", "sentence-transformers>=5.6.1")
CURVE_OPTIONS = CollectionOptions(chunk_tokens=32, chunk_overlap=0)
CURVE_CHUNKS_A_DOCUMENT = 20
SEARCH_EVERY_S = 0.1


def read_texts(data: Path, n: int) -> list[str]:
    with (data / "load-en" / "corpus.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(n), strict=False)]


def write_files(folder: Path, texts: Sequence[str]) -> Path:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:06}.txt").write_text(text, encoding="utf-8")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One `penstock ingest`. `clock_s` is the whole command, `seconds` what it says of itself."""

    clock_s: float
    seconds: float
    done: int
    unchanged: int
    chunks: int
    failed: int


def penstock_ingest(server: Server, folder: Path, collection: str = "default") -> Run:
    began = time.perf_counter()
    command = ["ingest", str(folder), "--collection", collection, "--url", server.url, "--json"]
    done = subprocess.run([sys.executable, "-m", "penstock", *command], capture_output=True, text=True, check=False)
    clock_s = time.perf_counter() - began
    if not done.stdout:
        raise SystemExit(f"penstock ingest failed: {done.stderr}")
    told = json.loads(done.stdout)
    return Run(clock_s=clock_s, **{name: told[name] for name in ("seconds", "done", "unchanged", "chunks", "failed")})


def bench_embed(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "penstock", "bench", "embed", str(folder), "--json"]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def measure_load(texts: Sequence[str], home: Path, *, quick: bool) -> dict[str, float]:
    """First and second run over the same folder, raw embedding before and (unless `quick`) after them."""
    folder = write_files(home / "load", texts)
    raw = [bench_embed(folder)]
    with running() as server:
        before = server.cpu_s()
        first = penstock_ingest(server, folder)
        cpu_s = {role: seconds - before[role] for role, seconds in server.cpu_s().items()}
        rss_mb = server.rss_mb()["worker"]
        second = penstock_ingest(server, folder)
        embedded = asyncio.run(third_run(server, folder))
    if not quick:
        raw.append(bench_embed(folder))
    texts_per_s = median(one["texts_per_s"] for one in raw)
    embed_cpu_s = median(one["cpu_s"] for one in raw)
    total_s = sum(cpu_s.values())
    return {
        "documents_per_min": first.done / first.seconds * 60,
        "chunks_per_s": first.chunks / first.seconds,
        "embed_texts_per_s": texts_per_s,
        "ratio.bench_embed": first.done / first.seconds / texts_per_s,
        "ratio.bench_embed_cpu": embed_cpu_s / total_s,
        "share.embed": embed_cpu_s / total_s,
        "share.worker": max(0.0, cpu_s["worker"] - embed_cpu_s) / total_s,
        "share.parsers": cpu_s["parsers"] / total_s,
        "share.api": cpu_s["api"] / total_s,
        "worker.rss_mb": rss_mb,
        "second_run.seconds": second.clock_s,
        "second_run.speedup": first.clock_s / second.clock_s,
        "second_run.unchanged": second.unchanged,
        "other_collection.speedup": first.clock_s / embedded,
    }


async def third_run(server: Server, folder: Path) -> float:
    """Seconds for the same files into another collection: uploaded and indexed anew, neither parsed nor embedded."""
    async with AsyncClient(server.url) as client:
        await client.create_collection("again")
    return (await asyncio.to_thread(penstock_ingest, server, folder, "again")).clock_s


def measure_good(data: Path) -> dict[str, float]:
    with running() as server:
        before = server.cpu_s()
        run = penstock_ingest(server, data / "docs" / "good")
        cpu_s = {role: seconds - before[role] for role, seconds in server.cpu_s().items()}
    return {
        "good.documents_per_min": run.done / run.seconds * 60,
        "good.chunks_per_s": run.chunks / run.seconds,
        "good.failed": run.failed,
        **{f"good.share.{role}": seconds / sum(cpu_s.values()) for role, seconds in cpu_s.items()},
    }


class Curve:
    """Synthetic documents one batch after the other, and searches beside them."""

    def __init__(self, server: Server, client: AsyncClient, texts: Sequence[str], chunks: int) -> None:
        self._server = server
        self._client = client
        self._random = random.Random(7)
        self._words = " ".join(texts[:2000]).split()
        self._chunks = chunks
        self._questions = [" ".join(text.split()[:9]) for text in texts[:200]]
        self.points: list[tuple[int, float, float]] = []
        self._cpu_ms: list[float] = []

    async def run(self) -> dict[str, float]:
        await self._client.create_collection("curve", CURVE_OPTIONS)
        await self._add(max(self._chunks // 20, 200), 0)
        idle = await self._search_for(4.0)
        loaded: list[float] = []
        searching = asyncio.create_task(self._search(loaded))
        step, number = max(self._chunks // 20, 200), 1
        while self.points[-1][0] < self._chunks - step:
            await self._add(step, number)
            number += 1
        searching.cancel()  # the last part alone, as the first was
        await self._add(step, number)
        first, last = self.points[0], self.points[-1]
        return {
            "last_over_first": last[1] / first[1],
            "curve.cpu_last_over_first": self._cpu_ms[0] / self._cpu_ms[-1],
            "curve.chunks": last[0],
            "curve.first_chunks_per_s": first[1],
            "curve.last_chunks_per_s": last[1],
            "curve.first_rss_mb": first[2],
            "curve.last_rss_mb": last[2],
            "curve.max_rss_mb": max(point[2] for point in self.points),
            "search.idle_p50_ms": median(idle),
            "search.during_p50_ms": median(loaded) if loaded else 0.0,
            "search.during_over_idle": median(loaded) / median(idle) if loaded else 0.0,
        }

    async def _add(self, chunks: int, number: int) -> None:
        files = [self._document(f"{number}-{i}") for i in range(max(1, chunks // CURVE_CHUNKS_A_DOCUMENT))]
        before = sum(self._server.cpu_s().values())
        report = await Ingestion(self._client, "curve", longest_look_s=0.2).run(files)
        self._cpu_ms.append(1000 * (sum(self._server.cpu_s().values()) - before) / max(report.chunks, 1))
        if report.failures:
            raise SystemExit(f"a synthetic document failed: {report.failures[0].message}")
        so_far = self.points[-1][0] if self.points else 0
        self.points.append((so_far + report.chunks, report.chunks / report.seconds, self._server.rss_mb()["worker"]))
        held, rate, rss_mb = self.points[-1]
        told = f"curve {held:,} chunks: {rate:,.0f}/s, {self._cpu_ms[-1]:.2f} ms of the processor each"
        print(f"{told}, worker {rss_mb:,.0f} MiB", file=sys.stderr)

    def _document(self, name: str) -> NewFile:
        paragraphs = (" ".join(self._random.choices(self._words, k=19)) for _ in range(CURVE_CHUNKS_A_DOCUMENT))
        return NewFile(name=f"{name}.txt", content="\n\n\n".join(paragraphs).encode(), media_type="text/plain")

    async def _search_for(self, seconds: float) -> list[float]:
        found: list[float] = []
        task = asyncio.create_task(self._search(found))
        await asyncio.sleep(seconds)
        task.cancel()
        return found[2:] or found

    async def _search(self, found: list[float]) -> None:
        while True:
            await asyncio.sleep(SEARCH_EVERY_S)
            began = time.perf_counter()
            try:
                await self._client.search(self._random.choice(self._questions), collection="curve")
            except PenstockError as exc:
                print(f"a search failed: {exc}", file=sys.stderr)
            found.append((time.perf_counter() - began) * 1000)


async def measure_curve(texts: Sequence[str], chunks: int) -> dict[str, float]:
    with running() as server:
        async with AsyncClient(server.url) as client:
            return await Curve(server, client, texts, chunks).run()


def is_installed(peer: str) -> bool:
    return (PEERS_HOME / f"installed-{peer}").exists()


def peer_python(peer: str) -> Path:
    """The interpreter of the peers' environment, made on first use."""
    python, done = PEERS_HOME / "bin" / "python", PEERS_HOME / f"installed-{peer}"
    if not is_installed(peer):
        print(f"installing {peer}, once ...", file=sys.stderr)
        venv.create(PEERS_HOME, with_pip=True)
        requirements = (*COMMON, *REQUIREMENTS[peer])
        subprocess.run([python, "-m", "pip", "install", "-q", *requirements], check=True, stdout=sys.stderr)
        done.touch()
    return python


def measure_peer(peer: str, texts: Sequence[str], home: Path) -> dict[str, float]:
    """The same files through the peer and through a fresh server, one after the other."""
    folder = write_files(home / "peer", texts)
    options = ModelsOptions()
    model = find_model(DEFAULT_MODEL, cache_dir=options.cache_dir)
    script = Path(__file__).with_name("ingest_peer.py")
    tokens = CollectionOptions().chunk_tokens
    command = [str(part) for part in (peer_python(peer), script, peer, model, folder, tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer} failed: {done.stderr[-2000:]}")
    theirs = json.loads(done.stdout.splitlines()[-1])
    with running() as server:
        before = sum(server.cpu_s().values())
        ours = penstock_ingest(server, folder)
        cpu_s = sum(server.cpu_s().values()) - before
    return {
        f"{peer}.documents_per_min": len(texts) / theirs["seconds"] * 60,
        f"ratio.{peer}": theirs["seconds"] / ours.seconds,
        f"ratio.{peer}_cpu": theirs["cpu_s"] / cpu_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small parts, under a minute once the peer is installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peer", choices=[*REQUIREMENTS, "none"], default="langchain")
    parser.add_argument("--documents", type=int, default=None, help="passages of load-en (2000; quick: 200)")
    parser.add_argument("--curve", type=int, default=None, help="chunks, 0: no curve (200000; quick: 1000)")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of load-en and docs")
    args = parser.parse_args()
    documents = args.documents or (200 if args.quick else 2000)
    chunks = (1_000 if args.quick else 200_000) if args.curve is None else args.curve
    texts = read_texts(args.data, max(documents, 2000))
    with TemporaryDirectory(prefix="penstock-bench-") as home:
        found = measure_load(texts[:documents], Path(home), quick=args.quick)
        found |= measure_good(args.data)
        if chunks:
            found |= asyncio.run(measure_curve(texts, chunks))
        if args.quick and args.peer != "none" and not is_installed(args.peer):
            print(f"without {args.peer}: a whole run installs it", file=sys.stderr)
        elif args.peer != "none":
            found |= measure_peer(args.peer, texts[: 60 if args.quick else 500], Path(home))
    rounded = {name: round(value, 3) for name, value in found.items()}
    if args.json:
        print(json.dumps(rounded))
    else:
        for name, value in rounded.items():
            print(f"{name:32} {value:,.3f}")


if __name__ == "__main__":
    main()
