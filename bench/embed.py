"""Embedding on this machine: Penstock, its ceiling, questions under load, and other libraries on the same passages.

    python bench/embed.py [--quick] [--json] [--peers] [--texts N] [--corpus FILE]

FILE is a `corpus.jsonl` of BEIR's layout. `--peers` makes an environment of their own for the other libraries
(build/peers, about 1.5 GB) and measures them too. Rounds alternate, so that a machine whose speed drifts favours
nobody; every figure is the median of its rounds. Figures by processor time (`cpu`) hold on a busy machine too.
`--quick` stays under a minute (peers aside).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from penstock.models.base import Lane
from penstock.models.bench import BenchCeiling, BenchEmbed, bench_embed, bench_interactive, measure_ceiling
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe
from penstock.models.weights import find_model

CORPUS = Path(__file__).parents[2] / "shared" / "data" / "load-en" / "corpus.jsonl"
PEERS_HOME = Path(__file__).parents[1] / "build" / "peers"
REQUIREMENTS = ("torch==2.13.0", "sentence-transformers==6.2.0", "onnxruntime==1.32.0", "onnx")
PEERS = ("sentence_transformers", "sentence_transformers_bf16", "onnxruntime")
BACKENDS = ("sentence_transformers_openvino", "sentence_transformers_onnx")


def read_texts(file: Path, limit: int) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line, _ in zip(lines, range(limit), strict=False)]


def questions_of(texts: Sequence[str]) -> list[str]:
    """As long as questions are: the first words of passages."""
    return [" ".join(text.split()[:12]) + "?" for text in texts]


async def measure(texts: Sequence[str], rounds: int, seconds: float) -> dict[str, Any]:
    options = ModelsOptions()
    network = read_recipe(find_model(options.embedding, cache_dir=options.cache_dir), options.embedding).network
    ceilings: list[BenchCeiling] = []
    runs: list[BenchEmbed] = []
    async with ModelPool(options) as pool:
        await pool.preload()
        for _ in range(rounds):
            precision = (await pool.embedder()).info.precision
            ceilings.append(measure_ceiling(network, precision=precision))
            runs.append(await bench_embed(pool, texts))
        asked = await bench_interactive(pool, texts, questions_of(texts), seconds=seconds)
        alone = median([runs[-1].texts_per_s, (await bench_embed(pool, texts)).texts_per_s])
        vectors = await (await pool.embedder()).embed(texts[:200], lane=Lane.BULK)
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as exact:
        reference = await (await exact.embedder()).embed(texts[:200], lane=Lane.BULK)
    tokens_per_s = median(run.tokens_per_s for run in runs)
    tokens_per_cpu_s = median(run.tokens / run.cpu_s for run in runs)
    ceiling_per_s = median(ceiling.tokens_per_s for ceiling in ceilings)
    ceiling_per_cpu_s = median(ceiling.tokens_per_cpu_s for ceiling in ceilings)
    return {
        "penstock": {
            "tokens_per_s": tokens_per_s,
            "texts_per_s": median(run.texts_per_s for run in runs),
            "tokens_per_cpu_s": tokens_per_cpu_s,
            "precision": runs[0].precision,
            "texts": len(texts),
        },
        "ceiling": {"tokens_per_s": ceiling_per_s, "tokens_per_cpu_s": ceiling_per_cpu_s},
        "ratio": {
            "ceiling": tokens_per_s / ceiling_per_s,
            "ceiling_cpu": tokens_per_cpu_s / ceiling_per_cpu_s,
        },
        "cosine_min": float((vectors * reference).sum(axis=1).min()),
        "interactive": {"rate": 50, "p50_ms": asked.p50_ms, "p95_ms": asked.p95_ms, "max_ms": asked.max_ms},
        "bulk": {"kept": asked.bulk_texts_per_s / alone},
    }


def peers_python() -> Path:
    """The interpreter of the peers' environment, made on first use."""
    python = PEERS_HOME / "bin" / "python"
    done = PEERS_HOME / "installed"
    if not done.exists():
        print("installing the peers, once ...", file=sys.stderr)
        venv.create(PEERS_HOME, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REQUIREMENTS], check=True, stdout=sys.stderr)
        # Brings the two further backends where it installs; they are left out where it does not.
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "optimum[openvino,onnxruntime]"], check=False, stdout=sys.stderr
        )
        done.touch()
    return python


def measure_peers(texts: Sequence[str], tokens: int, rounds: int) -> dict[str, Any]:
    """Each peer in a process of its own, `rounds` times in turn."""
    folder = find_model(DEFAULT_MODEL, cache_dir=ModelsOptions().cache_dir)
    python, script = peers_python(), Path(__file__).with_name("embed_peers.py")
    found: dict[str, list[Mapping[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "texts.json"
        file.write_text(json.dumps(texts))
        for peer in (*PEERS, *BACKENDS) * rounds:
            done = subprocess.run([python, script, peer, folder, file], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{peer} does not run here: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            found.setdefault(peer, []).append(json.loads(done.stdout.splitlines()[-1]))
    return {
        peer: {
            "tokens_per_s": tokens / median(run["seconds"] for run in runs),
            "tokens_per_cpu_s": tokens / median(run["cpu_s"] for run in runs),
        }
        for peer, runs in found.items()
    }


async def tokens_of(texts: Sequence[str]) -> int:
    async with ModelPool(ModelsOptions()) as pool:
        return (await bench_embed(pool, texts)).tokens


def show(found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, Mapping):
            for key, number in value.items():
                print(f"{name}.{key:32} {number:,.3f}" if isinstance(number, float) else f"{name}.{key:32} {number}")
        else:
            print(f"{name:40} {value:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer texts and rounds, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peers", action="store_true", help="measure other libraries too")
    parser.add_argument("--texts", type=int, default=None, help="passages to embed (8000; quick: 300)")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a corpus.jsonl of BEIR's layout")
    args = parser.parse_args()
    texts = read_texts(args.corpus, args.texts or (300 if args.quick else 8000))
    found = asyncio.run(measure(texts, rounds=1 if args.quick else 3, seconds=4.0 if args.quick else 20.0))
    if args.peers:
        few = texts[:1000]  # the slowest peer takes minutes for these
        peers = measure_peers(few, asyncio.run(tokens_of(few)), rounds=1 if args.quick else 3)
        found["peers"] = {name: peer["tokens_per_s"] for name, peer in peers.items()}
        for name, peer in peers.items():
            found["ratio"][name] = found["penstock"]["tokens_per_s"] / peer["tokens_per_s"]
            found["ratio"][f"{name}_cpu"] = found["penstock"]["tokens_per_cpu_s"] / peer["tokens_per_cpu_s"]
    if args.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
