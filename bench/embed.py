"""Embedding on this machine: Penstock, its ceiling, questions under load, and other libraries on the same passages.

    python bench/embed.py [--quick] [--json] [--peers] [--texts N] [--corpus FILE] [--device cuda]

FILE is a `corpus.jsonl` of BEIR's layout. `--peers` makes an environment of their own for the other libraries
(build/peers, about 1.7 GB) and measures them; once it is there, they are measured without being asked for, but for the
slow ones with `--quick`. The ceiling is that of 16 bits (32 where the processor has no other) also where Penstock runs
products in 8 bits; then that of 8 bits is shown beside it. Rounds alternate and every figure is the median of its
rounds, so that a machine whose speed drifts favours nobody. `--quick` stays under a minute. `--json` prints one flat
object; a ratio is ours over theirs, and null where the other was not measured.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from penstock.models.base import Lane, Vectors
from penstock.models.bench import (
    BenchCeiling,
    BenchEmbed,
    BenchInteractive,
    bench_embed,
    bench_interactive,
    measure_ceiling,
)
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe
from penstock.models.weights import find_model

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "load-en" / "corpus.jsonl"
PEERS_HOME = Path(__file__).parents[1] / "build" / "peers"
PYTHON = PEERS_HOME / "bin" / "python"
INSTALLED = PEERS_HOME / "installed"
REQUIREMENTS = ("torch==2.13.0", "sentence-transformers==6.2.0", "onnxruntime==1.32.0", "onnx", "httpx")
BACKENDS = "optimum[openvino,onnxruntime]"
"""Brings two further peers where it installs; they are left out where it does not."""

PEERS = (
    "sentence_transformers",
    "onnxruntime",
    "sentence_transformers_bf16",
    "sentence_transformers_openvino",
    "sentence_transformers_onnx",
)
QUICK_PEERS = PEERS[:2]
COMPARED = 200
"""Passages whose vectors are compared with those in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured. The slowest peer takes minutes for a thousand passages."""

    texts: int = 8000
    peer_texts: int = 1000
    rounds: int = 3
    peer_rounds: int = 2
    seconds: float = 20.0
    peers: tuple[str, ...] = PEERS


QUICK = Plan(texts=300, peer_texts=64, rounds=1, peer_rounds=1, seconds=3.0, peers=QUICK_PEERS)


@dataclass(slots=True)
class Found:
    """Everything that was measured, each list one entry a round."""

    ceilings: list[BenchCeiling] = field(default_factory=list)
    ceilings_in_8_bits: list[BenchCeiling] = field(default_factory=list)
    runs: list[BenchEmbed] = field(default_factory=list)
    asked: BenchInteractive | None = None
    cosine_min: float = 0.0
    ours: list[BenchEmbed] = field(default_factory=list)
    peers: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)

    @property
    def tokens_per_s(self) -> float:
        return median(run.tokens_per_s for run in self.runs)

    def ratio(self, peer: str) -> float | None:
        """Ours over theirs, on the passages that both had."""
        theirs = self.peers.get(peer)
        return median(run["seconds"] for run in theirs) / median(run.seconds for run in self.ours) if theirs else None

    def ratio_cpu(self, peer: str) -> float:
        """The same by processor time, which a busy machine disturbs less."""
        return median(run["cpu_s"] for run in self.peers[peer]) / median(run.cpu_s for run in self.ours)

    def figures(self) -> dict[str, float | None]:
        asked = self.asked
        assert asked is not None, "it is measured first"
        return {
            "penstock.tokens_per_s": self.tokens_per_s,
            **{f"ratio.{peer}": self.ratio(peer) for peer in PEERS if peer in (*QUICK_PEERS, *self.peers)},
            "ratio.ceiling": self.tokens_per_s / median(one.tokens_per_s for one in self.ceilings),
            "cosine_min": self.cosine_min,
            "interactive.p95_ms": asked.p95_ms,
            "bulk.kept": asked.bulk_texts_per_s / asked.bulk_alone_texts_per_s,
        }

    def more(self) -> dict[str, float]:
        """What people want to see beside the figures."""
        asked = self.asked
        assert asked is not None, "it is measured first"
        cpu = median(run.tokens / run.cpu_s for run in self.runs)
        return {
            "penstock.tokens_per_cpu_s": cpu,
            "ceiling.tokens_per_s": median(one.tokens_per_s for one in self.ceilings),
            "ratio.ceiling, processor time": cpu / median(one.tokens_per_cpu_s for one in self.ceilings),
            **self.share_in_8_bits(cpu),
            "interactive.p50_ms": asked.p50_ms,
            "interactive.max_ms": asked.max_ms,
            **{f"ratio.{peer}, processor time": self.ratio_cpu(peer) for peer in self.peers},
        }

    def share_in_8_bits(self, tokens_per_cpu_s: float) -> dict[str, float]:
        if not self.ceilings_in_8_bits:
            return {}
        wall, cpu = (
            median(getattr(one, name) for one in self.ceilings_in_8_bits)
            for name in ("tokens_per_s", "tokens_per_cpu_s")
        )
        return {
            "ratio.ceiling, in 8 bits": self.tokens_per_s / wall,
            "ratio.ceiling, in 8 bits, processor time": tokens_per_cpu_s / cpu,
        }


def read_texts(file: Path, limit: int) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(limit), strict=False)]


def questions_of(texts: Sequence[str]) -> list[str]:
    """As long as questions are: the first words of passages."""
    return [" ".join(text.split()[:12]) + "?" for text in texts]


async def measure(texts: Sequence[str], plan: Plan) -> Found:
    options = ModelsOptions(preload=("default",))
    network = read_recipe(find_model(options.embedding, cache_dir=options.cache_dir), options.embedding).network
    found = Found()
    async with ModelPool(options) as pool:
        await pool.preload()
        precision = (await pool.embedder()).info.precision
        for _ in range(plan.rounds):
            if precision == "i8":
                found.ceilings_in_8_bits.append(measure_ceiling(network, precision=precision))
            found.ceilings.append(measure_ceiling(network, precision="auto" if precision == "i8" else precision))
            found.runs.append(await bench_embed(pool, texts))
        found.asked = await bench_interactive(pool, texts, questions_of(texts), seconds=plan.seconds)
        vectors = await (await pool.embedder()).embed(texts[:COMPARED], lane=Lane.BULK)
        await measure_peers(pool, texts[: plan.peer_texts], plan, found)
    found.cosine_min = nearness(vectors, await exact_vectors(texts[:COMPARED]))
    return found


async def exact_vectors(texts: Sequence[str]) -> Vectors:
    async with ModelPool(ModelsOptions(precision="f32")) as pool:
        return await (await pool.embedder()).embed(texts, lane=Lane.BULK)


def nearness(vectors: Vectors, others: Vectors) -> float:
    return float(np.einsum("ij,ij->i", vectors, others).min())


def install_peers() -> None:
    """The peers' environment, made on first use."""
    if INSTALLED.exists():
        return
    print("installing the peers, once ...", file=sys.stderr)
    venv.create(PEERS_HOME, with_pip=True, clear=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True, stdout=sys.stderr)
    subprocess.run([PYTHON, "-m", "pip", "install", "-q", BACKENDS], check=False, stdout=sys.stderr)
    INSTALLED.touch()


async def measure_peers(pool: ModelPool, texts: Sequence[str], plan: Plan, found: Found) -> None:
    """Each peer in a process of its own, in turn with Penstock."""
    if not INSTALLED.exists():
        print("the other libraries are not measured: --peers installs them", file=sys.stderr)
        return
    folder = find_model(DEFAULT_MODEL, cache_dir=ModelsOptions().cache_dir)
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "texts.json"
        file.write_text(json.dumps(list(texts)))
        for peer in plan.peers * plan.peer_rounds:
            found.ours.append(await bench_embed(pool, texts))
            run = run_peer(peer, folder, file)
            if run:
                found.peers.setdefault(peer, []).append(run)


def run_peer(peer: str, folder: Path, texts: Path) -> Mapping[str, Any] | None:
    """What it took, or None for one that does not run here."""
    script = Path(__file__).with_name("embed_peers.py")
    done = subprocess.run([PYTHON, script, peer, folder, texts], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{peer} does not run here: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    took: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return took


def show(figures: Mapping[str, float | None]) -> None:
    for name, value in figures.items():
        print(f"{name:48} {'not measured' if value is None else f'{value:12,.4f}'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer texts, rounds and peers, under a minute")
    parser.add_argument("--json", action="store_true", help="print one flat JSON object")
    parser.add_argument("--peers", action="store_true", help="install the other libraries, and measure all of them")
    parser.add_argument("--texts", type=int, default=None, help=f"passages to embed ({Plan().texts})")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a corpus.jsonl of BEIR's layout")
    parser.add_argument("--device", default="cpu", help="cuda: what `embed_cuda.py` measures, on a GPU")
    args = parser.parse_args()
    if args.device != "cpu":
        flags = [flag for flag, on in (("--quick", args.quick), ("--json", args.json)) if on]
        script = Path(__file__).with_name("embed_cuda.py")
        sys.exit(subprocess.call([sys.executable, script, "--device", args.device, *flags]))
    plan = QUICK if args.quick else Plan()
    if args.peers:
        install_peers()
    found = asyncio.run(measure(read_texts(args.corpus, args.texts or plan.texts), plan))
    if args.json:
        print(json.dumps(found.figures()))
    else:
        show({**found.figures(), **found.more()})


if __name__ == "__main__":
    main()
