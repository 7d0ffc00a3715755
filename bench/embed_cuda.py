"""Embedding on a GPU, through the whole batcher, beside sentence-transformers and what the card's products alone allow.

    python bench/embed.py --device cuda [--quick] [--json]

Needs `pip install "penstock[torch]" sentence-transformers` and a GPU; without one it says so and exits with 1.
MiniLM and a BERT-base with random weights embed texts of exactly 50 and 512 tokens. Then the card's memory is filled
up, once nearly and once wholly, and the same texts must come out the same. `--device cpu-torch` runs all of it on the
processor with tiny sizes, to see that it runs; its figures say nothing.
"""

import argparse
import asyncio
import importlib
import importlib.util
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from penstock.models.base import Embedder, Lane
from penstock.models.options import DEFAULT_MODEL, BatcherOptions, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import NetworkConfig, read_network
from penstock.models.torch_device import find_device
from penstock.models.weights import find_model

LENGTHS = (50, 512)
CALLERS = 32
TEXTS_A_CALL = 128
PEER_BATCHES = (64, 256, 1024)
GOAL_RATIO, GOAL_BERT_512 = 2.0, 1.6e6
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: tokens of a run, rounds, and where."""

    device: str
    tokens: int
    rounds: int
    tiny: bool

    def texts_of(self, length: int) -> int:
        return max(8, self.tokens // length)


def make_models(torch: Any, home: Path, plan: Plan) -> Mapping[str, Path]:
    """MiniLM, allowed 512 tokens, and a BERT-base with random weights and MiniLM's tokenizer."""
    packaged = find_model(DEFAULT_MODEL, cache_dir=ModelsOptions().cache_dir)
    minilm = Path(shutil.copytree(packaged, home / "minilm", ignore=shutil.ignore_patterns("onnx", "openvino")))
    (minilm / "sentence_bert_config.json").write_text('{"max_seq_length": 512, "do_lower_case": false}')
    tokenizer_config = minilm / "tokenizer_config.json"
    if tokenizer_config.is_file():
        told = json.loads(tokenizer_config.read_text())
        tokenizer_config.write_text(json.dumps({**told, "model_max_length": 512}))
    transformers = importlib.import_module("transformers")
    torch.manual_seed(0)
    bert = home / "bert-base"
    sizes = TINY if plan.tiny else BASE
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(bert)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (minilm / name).is_file():
            shutil.copy(minilm / name, bert)
    return {"minilm": minilm, "bert_base": bert}


def make_texts(tokenizer: Tokenizer, count: int, length: int, seed: int) -> list[str]:
    """Texts of exactly `length` tokens: words that are one token each."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and word.islower())
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(words, k=length - 2)) for _ in range(count)]
    assert {len(encoding.ids) for encoding in tokenizer.encode_batch(texts[:20])} == {length}
    return texts


async def embed_all(embedder: Embedder, texts: Sequence[str]) -> Any:
    """As the jobs of a worker do: many callers at once. The vectors, in order."""
    vectors = np.empty((len(texts), embedder.info.dimensions), np.float32)
    starts = iter(range(0, len(texts), TEXTS_A_CALL))

    async def caller() -> None:
        for start in starts:
            part = texts[start : start + TEXTS_A_CALL]
            vectors[start : start + len(part)] = await embedder.embed(part, lane=Lane.BULK)

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    return vectors


async def measure_ours(embedder: Embedder, texts: Sequence[str], rounds: int) -> float:
    """Seconds of the best round."""
    await embed_all(embedder, texts[: len(texts) // 4 + 1])
    best = math.inf
    for _ in range(rounds):
        began = time.perf_counter()
        await embed_all(embedder, texts)
        best = min(best, time.perf_counter() - began)
    return best


def measure_peer(torch: Any, folder: Path, texts: Sequence[str], plan: Plan) -> float:
    """Seconds of sentence-transformers in fp16 with its best batch size; fp32 on a processor."""
    library = importlib.import_module("sentence_transformers")
    dtype = torch.float32 if plan.device == "cpu" else torch.float16
    model = library.SentenceTransformer(str(folder), device=plan.device, model_kwargs={"dtype": dtype})
    model.max_seq_length = 512
    best = math.inf
    for batch in PEER_BATCHES[:1] if plan.tiny else PEER_BATCHES:
        model.encode(list(texts[:batch]), batch_size=batch, normalize_embeddings=True)
        for _ in range(plan.rounds):
            began = time.perf_counter()
            model.encode(list(texts), batch_size=batch, normalize_embeddings=True)
            best = min(best, time.perf_counter() - began)
    return best


def measure_ceiling(torch: Any, network: NetworkConfig, plan: Plan) -> float:
    """Tokens a second that the card does of the network's weight products alone, in bfloat16."""
    hidden, wide = network.hidden_size, network.intermediate_size
    tokens = 256 if plan.tiny else 16_384
    shapes = ([(hidden, hidden)] * 4 + [(hidden, wide), (wide, hidden)]) * network.num_hidden_layers
    weights = [torch.randn(shape, device=plan.device, dtype=torch.bfloat16) / math.sqrt(shape[0]) for shape in shapes]
    x = torch.randn((tokens, hidden), device=plan.device, dtype=torch.bfloat16)
    best = math.inf
    for _ in range(3 if plan.tiny else 20):
        synchronize(torch, plan.device)
        began = time.perf_counter()
        y = x
        for weight in weights:
            y = y @ weight
        synchronize(torch, plan.device)
        best = min(best, time.perf_counter() - began)
    return tokens / best


def synchronize(torch: Any, device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def options_of(plan: Plan, models: Mapping[str, Path]) -> ModelsOptions:
    embedders = {name: {"model": str(folder), "engine": "torch"} for name, folder in models.items()}
    batcher = BatcherOptions(batch_tokens=1024) if plan.tiny else BatcherOptions()
    return ModelsOptions.model_validate({"device": plan.device, "embedders": embedders, "batcher": batcher})


async def measure(torch: Any, plan: Plan, home: Path) -> dict[str, Any]:
    models = make_models(torch, home, plan)
    found: dict[str, Any] = {"device": torch.cuda.get_device_name() if plan.device != "cpu" else "cpu"}
    async with ModelPool(options_of(plan, models)) as pool:
        for name, folder in models.items():
            embedder = await pool.embedder(name)
            found[f"{name}.precision"] = embedder.info.precision
            found[f"{name}.ceiling.tokens_per_s"] = ceiling = measure_ceiling(
                torch, read_network(folder / "config.json"), plan
            )
            for length in LENGTHS:
                texts = make_texts(embedder.tokenizer, plan.texts_of(length), length, seed=length)
                tokens = len(texts) * length
                ours = tokens / await measure_ours(embedder, texts, plan.rounds)
                peer = tokens / await asyncio.to_thread(measure_peer, torch, folder, texts, plan)
                found |= {
                    f"{name}.{length}.tokens_per_s": ours,
                    f"{name}.{length}.sentence_transformers.tokens_per_s": peer,
                    f"{name}.{length}.ratio.sentence_transformers": ours / peer,
                    f"{name}.{length}.ratio.ceiling": ours / ceiling,
                }
    return found | await measure_full(torch, plan, models)


async def measure_full(torch: Any, plan: Plan, models: Mapping[str, Path]) -> dict[str, Any]:
    """Fill the memory while texts are embedded; what came out, and what the batcher did."""
    registry = CollectorRegistry()
    async with ModelPool(options_of(plan, models), registry=registry) as pool:
        embedder = await pool.embedder("bert_base")
        texts = make_texts(embedder.tokenizer, plan.texts_of(256), 256, seed=1)
        want = await embed_all(embedder, texts)
        with full(torch, plan, leave=192 * MEBIBYTE, holds=600):
            tight = await embed_all(embedder, texts)
        with full(torch, plan, leave=0, holds=256):
            few = await embed_all(embedder, texts[:16])
        after = await embed_all(embedder, texts)

    def metric(name: str) -> float:
        return registry.get_sample_value(name, {"model": "bert_base"}) or 0.0

    return {
        "full.batches_that_did_not_fit": metric("penstock_model_out_of_memory_total"),
        "full.texts_on_the_processor": metric("penstock_model_spared_rows_total"),
        "full.failures": metric("penstock_model_failures_total"),
        "full.cosine_min": min(float((got * want[: len(got)]).sum(axis=1).min()) for got in (tight, few, after)),
    }


@contextmanager
def full(torch: Any, plan: Plan, *, leave: int, holds: int) -> Iterator[None]:
    """The card's memory taken but for `leave` bytes; on a processor batches of over `holds` tokens are refused."""
    if plan.device == "cpu":
        with refusing(torch, holds):
            yield
        return
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = []
    for size in (max(0, free - leave), *([MEBIBYTE] * 1000 if not leave else [])):
        try:
            ballast.append(torch.empty(size, dtype=torch.uint8, device=plan.device))
        except torch.OutOfMemoryError:
            break
    yield
    ballast.clear()
    torch.cuda.empty_cache()


def refusing(torch: Any, holds: int) -> AbstractContextManager[Any]:
    engine = importlib.import_module("penstock.models.torch_encoder")
    real = vars(engine)["pack"]

    def pack(torch_: Any, ids: Any, mask: Any, device: str) -> Any:
        if ids.size > holds:
            raise torch.OutOfMemoryError("out of memory, on purpose")
        return real(torch_, ids, mask, device)

    return patch.object(engine, "pack", pack)


def refuse(reason: str) -> int:
    print(f"bench/embed.py --device cuda needs a GPU: {reason}", file=sys.stderr)
    return 1


def run(device: str, *, quick: bool, as_json: bool) -> int:
    for package in ("torch", "sentence_transformers"):
        if importlib.util.find_spec(package) is None:
            return refuse(f'{package} is not installed (pip install "penstock[torch]" sentence-transformers).')
    torch = importlib.import_module("torch")
    tiny = device == "cpu-torch"
    if not tiny and not torch.cuda.is_available():
        return refuse(f"torch {torch.__version__} finds none here.")
    tokens = 5_000 if tiny else 2_000_000 if quick else 16_000_000
    plan = Plan(
        device="cpu" if tiny else find_device(device), tokens=tokens, rounds=1 if quick or tiny else 3, tiny=tiny
    )
    with tempfile.TemporaryDirectory() as home:
        found = asyncio.run(measure(torch, plan, Path(home)))
    if as_json:
        print(json.dumps(found))
        return 0
    for name, value in found.items():
        print(f"{name:60} {value:,.3f}" if isinstance(value, float) else f"{name:60} {value}")
    if not tiny:
        print(f"goals: ratio.sentence_transformers >= {GOAL_RATIO}, bert_base.512.tokens_per_s >= {GOAL_BERT_512:,.0f}")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu-torch")
    parser.add_argument("--quick", action="store_true", help="fewer texts and rounds, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    sys.exit(run(args.device, quick=args.quick, as_json=args.json))


if __name__ == "__main__":
    main()
