"""Cross-encoders made by the test, of every family, against the same mathematics written in NumPy."""

import asyncio
import importlib.util
import json
import math
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino as ov
import openvino.opset15 as op
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from penstock.errors import ConfigError, DataError, InvalidInput, Unavailable
from penstock.models.base import Lane, Reranker
from penstock.models.embedder import read_tokenizer
from penstock.models.options import LocalRerankerOptions, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.rerank import probabilities
from penstock.models.rerank_pairs import read_template, tokenize_pairs, tokenize_query

HIDDEN, HEADS, LAYERS, WIDE, WORDS, LONGEST = 32, 2, 2, 48, 64, 40
QUERY = "w1 w2 w3"
TEXTS = ["w4 w5", "", "w6 w7 w8 w9 w10 w1", "w2 w2 w2", " ".join(f"w{n % 50}" for n in range(90))]
FAMILIES = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")

ENGINES = ["auto", *(["torch"] if importlib.util.find_spec("torch") else [])]
"""`make test-torch` runs these tests on torch, too."""

HEAD_NAMES = {"bert": ("bert.pooler.dense", "classifier"), "distilbert": ("pre_classifier", "classifier")}

Tensors = Mapping[str, NDArray[np.float32]]


def make_tokenizer(family: str) -> Tokenizer:
    twice = family in {"roberta", "xlm-roberta", "mpnet"}
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"] if twice else ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    words = [*special, *(f"w{number}" for number in range(WORDS - 4))]
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.add_special_tokens(["[CLS]", "[SEP]"])
    between = "[SEP] [SEP]" if twice else "[SEP]"
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A {between} $B:1 [SEP]:1",
        special_tokens=[(word, words.index(word)) for word in ("[CLS]", "[SEP]")],
    )
    return made


def names_of(family: str) -> dict[str, str]:
    """Where each part of a layer is stored."""
    bert = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "o": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "wide": "intermediate.dense",
        "narrow": "output.dense",
        "norm2": "output.LayerNorm",
    }
    attn = {part: f"attention.attn.{part}" for part in "qkvo"}
    mpnet = {**bert, **attn, "norm1": "attention.LayerNorm"}
    distilbert = {
        **{part: f"attention.{part}_lin" for part in "qkv"},
        "o": "attention.out_lin",
        "norm1": "sa_layer_norm",
        "wide": "ffn.lin1",
        "narrow": "ffn.lin2",
        "norm2": "output_layer_norm",
    }
    return {"mpnet": mpnet, "distilbert": distilbert}.get(family, bert)


def make_tensors(family: str) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(11)
    prefix = {"xlm-roberta": "roberta"}.get(family, family)
    stem = f"{prefix}.transformer.layer" if family == "distilbert" else f"{prefix}.encoder.layer"
    tensors: dict[str, NDArray[np.float32]] = {}

    def linear(name: str, out: int, into: int) -> None:
        tensors[f"{name}.weight"] = (random.normal(size=(out, into)) * 1.5 / math.sqrt(into)).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(size=out).astype(np.float32) * np.float32(0.3)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = 1 + random.normal(size=HIDDEN).astype(np.float32) * np.float32(0.2)
        tensors[f"{name}.bias"] = random.normal(size=HIDDEN).astype(np.float32) * np.float32(0.2)

    rows = {"word": WORDS, "position": LONGEST + 2}
    if family in {"bert", "roberta", "xlm-roberta"}:
        rows["token_type"] = 2 if family == "bert" else 1
    for name, count in rows.items():
        tensors[f"{prefix}.embeddings.{name}_embeddings.weight"] = random.normal(size=(count, HIDDEN)).astype(
            np.float32
        )
    norm(f"{prefix}.embeddings.LayerNorm")
    names = names_of(family)
    for number in range(LAYERS):
        for part in ("q", "k", "v", "o"):
            linear(f"{stem}.{number}.{names[part]}", HIDDEN, HIDDEN)
        linear(f"{stem}.{number}.{names['wide']}", WIDE, HIDDEN)
        linear(f"{stem}.{number}.{names['narrow']}", HIDDEN, WIDE)
        norm(f"{stem}.{number}.{names['norm1']}")
        norm(f"{stem}.{number}.{names['norm2']}")
    if family == "mpnet":
        tensors["mpnet.encoder.relative_attention_bias.weight"] = np.zeros((32, HEADS), np.float32)
    dense, out = HEAD_NAMES.get(family, ("classifier.dense", "classifier.out_proj"))
    linear(dense, HIDDEN, HIDDEN)
    linear(out, 1, HIDDEN)
    return tensors


def make_folder(folder: Path, family: str) -> Path:
    folder.mkdir()
    save_file(make_tensors(family), folder / "model.safetensors")
    make_tokenizer(family).save(str(folder / "tokenizer.json"))
    sizes = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": WIDE}
    if family != "distilbert":
        sizes = {
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": WIDE,
        }
    shifted = family in {"roberta", "xlm-roberta", "mpnet"}
    config = {
        "model_type": family,
        "vocab_size": WORDS,
        "max_position_embeddings": LONGEST + 2 * shifted,
        "pad_token_id": int(shifted),
        "id2label": {"0": "LABEL_0"},
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def score(tensors: Tensors, family: str, ids: list[int], types: list[int]) -> float:
    """One pair through the network, float64, as Devlin et al. 2018 write it."""
    prefix = {"xlm-roberta": "roberta"}.get(family, family)
    stem = f"{prefix}.transformer.layer" if family == "distilbert" else f"{prefix}.encoder.layer"

    def linear(x: Any, name: str) -> Any:
        return x @ tensors[f"{name}.weight"].astype(float).T + tensors[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return unit * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    words, positions = (tensors[f"{prefix}.embeddings.{name}_embeddings.weight"] for name in ("word", "position"))
    first = 2 if family in {"roberta", "xlm-roberta", "mpnet"} else 0
    x: Any = words[ids].astype(float) + positions[first : first + len(ids)]
    table = tensors.get(f"{prefix}.embeddings.token_type_embeddings.weight")
    if table is not None:
        x = x + (table[types] if len(table) == 2 else table[0])
    x = norm(x, f"{prefix}.embeddings.LayerNorm")
    names = names_of(family)
    for number in range(LAYERS):
        q, k, v = (linear(x, f"{stem}.{number}.{names[part]}") for part in "qkv")
        mixed = np.empty_like(q)
        size = HIDDEN // HEADS
        for part in (slice(h * size, (h + 1) * size) for h in range(HEADS)):
            weights = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            mixed[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
        x = norm(x + linear(mixed, f"{stem}.{number}.{names['o']}"), f"{stem}.{number}.{names['norm1']}")
        wide = linear(x, f"{stem}.{number}.{names['wide']}")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + linear(wide, f"{stem}.{number}.{names['narrow']}"), f"{stem}.{number}.{names['norm2']}")
    dense, out = HEAD_NAMES.get(family, ("classifier.dense", "classifier.out_proj"))
    hidden = linear(x[0], dense)
    logit = linear(np.maximum(hidden, 0) if family == "distilbert" else np.tanh(hidden), out)[0]
    return float(1 / (1 + math.exp(-logit)))


def expected(folder: Path, family: str, query: str, texts: list[str]) -> list[float]:
    """The library's own pair encoding and truncation (the second text only) before the mathematics."""
    tokenizer = make_tokenizer(family)
    tokenizer.enable_truncation(LONGEST, strategy="only_second")
    tensors = make_tensors(family)
    return [
        score(tensors, family, encoding.ids, encoding.type_ids)
        for encoding in tokenizer.encode_batch([(query, text) for text in texts])
    ]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    return make_folder(tmp_path / family, family)


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "bert", "bert")


def with_reranker(
    options: ModelsOptions, folder: Path, precision: str = "f32", engine: Literal["auto", "torch"] = "auto"
) -> ModelsOptions:
    reranker = LocalRerankerOptions(model=str(folder), candidates=7, engine=engine)
    return options.model_copy(update={"rerankers": {"tiny": reranker}, "precision": precision})


@pytest.fixture
async def reranker(options: ModelsOptions, bert_folder: Path) -> AsyncIterator[Reranker]:
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        yield await pool.reranker("tiny")


@pytest.mark.parametrize("engine", ENGINES)
async def test_scores_are_those_of_the_mathematics(
    folder: Path, family: str, engine: Literal["auto", "torch"], options: ModelsOptions
) -> None:
    want = expected(folder, family, QUERY, TEXTS)
    assert max(want) - min(want) > 0.03
    async with ModelPool(with_reranker(options, folder, engine=engine)) as pool:
        reranker = await pool.reranker("tiny")
        together = await reranker.rerank(QUERY, TEXTS)
        alone = np.concatenate([await reranker.rerank(QUERY, [text]) for text in TEXTS])
        many = await reranker.rerank(QUERY, TEXTS * 20, lane=Lane.BULK)
    assert together == pytest.approx(want, abs=1e-5)
    assert alone == pytest.approx(want, abs=1e-5)
    assert many.reshape(20, -1)[13] == pytest.approx(want, abs=1e-5)


async def test_reduced_precision_stays_near(options: ModelsOptions, bert_folder: Path) -> None:
    async with ModelPool(with_reranker(options, bert_folder, "auto")) as pool:
        found = await (await pool.reranker("tiny")).rerank(QUERY, TEXTS)
    assert found == pytest.approx(expected(bert_folder, "bert", QUERY, TEXTS), abs=0.05)


async def test_it_says_what_it_is(reranker: Reranker) -> None:
    assert (reranker.info.kind, reranker.info.max_tokens, reranker.candidates) == ("rerank", LONGEST, 7)
    assert reranker.info.memory_bytes > 0
    none = await reranker.rerank(QUERY, [])
    assert none.shape == (0,)


async def test_of_a_long_query_half_of_the_room_is_read(reranker: Reranker) -> None:
    words = [f"w{number}" for number in range(50)]
    half = (LONGEST - 3) // 2
    long, cut = await reranker.rerank(" ".join(words), TEXTS), await reranker.rerank(" ".join(words[:half]), TEXTS)
    assert long == pytest.approx(cut, abs=1e-6)


async def test_a_separator_that_somebody_typed_is_text(reranker: Reranker, bert_folder: Path) -> None:
    tokenizer = read_tokenizer(bert_folder / "tokenizer.json")
    template = read_template(tokenizer)
    tokenizer.encode_special_tokens = True
    (pair,) = tokenize_pairs(
        tokenizer, template, tokenize_query(tokenizer, "w1 [SEP] w2", room=10), ["w3 [CLS]"], max_tokens=20
    )
    assert list(pair).count(template.separator) == 2
    assert np.isfinite(await reranker.rerank("w1 [SEP] w2", ["w3 [CLS]"])).all()


async def test_half_a_surrogate_pair_is_refused(reranker: Reranker) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        await reranker.rerank(QUERY, ["good", "bad \ud800"])
    with pytest.raises(InvalidInput, match="Unicode"):
        await reranker.rerank("bad \ud800", ["good"])


async def test_cancelled_calls_leave_the_others_alone(reranker: Reranker, bert_folder: Path) -> None:
    want = await reranker.rerank(QUERY, TEXTS)
    calls = [asyncio.create_task(reranker.rerank(QUERY, TEXTS * 10)) for _ in range(20)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    for result in results[1::2]:
        assert isinstance(result, np.ndarray)
        assert result.reshape(10, -1)[3] == pytest.approx(want, abs=1e-5)


async def test_a_closed_pool_reranks_no_more(options: ModelsOptions, bert_folder: Path) -> None:
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        reranker = await pool.reranker("tiny")
    with pytest.raises(Unavailable):
        await reranker.rerank(QUERY, TEXTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "has 2 labels; a reranker has one"),
        ({"model_type": "llama"}, "family 'llama'"),
    ],
)
async def test_what_is_no_reranker_is_said(
    options: ModelsOptions, bert_folder: Path, changes: dict[str, Any], message: str
) -> None:
    file = bert_folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        with pytest.raises(ConfigError, match=message):
            await pool.reranker("tiny")


async def test_a_tokenizer_without_pairs_is_no_rerankers(options: ModelsOptions, bert_folder: Path) -> None:
    tokenizer = make_tokenizer("bert")
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer.save(str(bert_folder / "tokenizer.json"))
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        with pytest.raises(DataError, match="no reranker's"):
            await pool.reranker("tiny")


async def test_an_unknown_name_says_which_there_are(options: ModelsOptions, bert_folder: Path) -> None:
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        with pytest.raises(ConfigError, match=r"no reranker 'other'.*tiny"):
            await pool.reranker("other")


async def test_a_ready_graph_gets_ids_mask_and_types(options: ModelsOptions, bert_folder: Path) -> None:
    """Its logit is a sum of what it is given, so that every input shows."""
    inputs = [op.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask", "token_type_ids")]
    for node in inputs:
        node.output(0).set_names({node.get_friendly_name()})
    ids, mask, types = (op.convert(node, "f32") for node in inputs)
    weighed = op.multiply(mask, op.add(ids, op.multiply(types, op.constant(np.float32(100)))))
    total = op.reduce_sum(weighed, op.constant(np.array([1], np.int64)), keep_dims=True)
    logits = op.multiply(total, op.constant(np.float32(1e-3)))
    (bert_folder / "model.safetensors").unlink()
    (bert_folder / "openvino").mkdir()
    ov.save_model(ov.Model([logits], inputs), bert_folder / "openvino" / "openvino_model.xml")
    async with ModelPool(with_reranker(options, bert_folder)) as pool:
        found = await (await pool.reranker("tiny")).rerank("w1 w2", ["w3", "w4 w5 w6"])
    logits_by_hand = np.array([1 + 5 + 6 + 2 + 107 + 102, 1 + 5 + 6 + 2 + 108 + 109 + 110 + 102], np.float32) * 1e-3
    assert found == pytest.approx(probabilities(logits_by_hand), abs=1e-6)


def test_probabilities_keep_the_order_and_stay_inside() -> None:
    found = probabilities(np.array([-1e4, -1, 0, 1, 1e4], np.float32))
    assert found[2] == 0.5
    assert list(found) == sorted(found)
    assert found.min() >= 0
    assert found.max() <= 1
