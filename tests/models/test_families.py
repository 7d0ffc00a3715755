"""Tiny models of every family against vectors that transformers made of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op
import pytest

from penstock.errors import ConfigError, DataError
from penstock.models.base import Embedder
from penstock.models.openvino_bert import bert
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe
from penstock.models.tensors import TensorFile

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("bert", "roberta", "mpnet", "distilbert")


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / request.param))


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bert", tmp_path / "bert"))


def pooled_by_first_token(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


async def check(embedder: Embedder, folder: Path, how: str) -> None:
    rows = json.loads((folder / "vectors.json").read_text())
    texts = [row["text"] for row in rows]
    want = np.array([row[how] for row in rows])
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts])
    assert (together * want).sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (alone * want).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("how", ["mean", "cls"])
async def test_vectors_are_those_of_transformers(folder: Path, how: str, options: ModelsOptions) -> None:
    if how == "cls":
        pooled_by_first_token(folder)
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        embedder = await pool.embedder(str(folder))
        assert embedder.info.max_tokens == 40
        await check(embedder, folder, how)


async def test_a_ready_graph_is_used_as_it_is(bert_folder: Path, options: ModelsOptions) -> None:
    recipe = read_recipe(bert_folder, "bert")
    inputs = [op.parameter([-1, -1], np.int64, name=name) for name in ("input_ids", "attention_mask", "token_type_ids")]
    for node in inputs:
        node.output(0).set_names({node.get_friendly_name()})
    tokens = bert(recipe.network, TensorFile(bert_folder / "model.safetensors"), inputs[0], inputs[1])
    typed = op.add(tokens, op.unsqueeze(op.convert(inputs[2], "f32"), op.constant(np.int64(2))))
    (bert_folder / "openvino").mkdir()
    ov.save_model(ov.Model([typed], inputs), bert_folder / "openvino" / "openvino_model.xml", compress_to_fp16=False)
    (bert_folder / "model.safetensors").unlink()
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        await check(await pool.embedder(str(bert_folder)), bert_folder, "mean")


async def test_the_second_start_takes_the_compiled_network(bert_folder: Path, tmp_path: Path) -> None:
    options = ModelsOptions(cache_dir=tmp_path / "cache", precision="f32")
    kept = []
    for _ in range(2):
        async with ModelPool(options) as pool:
            await check(await pool.embedder(str(bert_folder)), bert_folder, "mean")
        kept.append({file: file.stat().st_mtime_ns for file in options.cache_dir.rglob("*.blob")})
    assert len(kept[0]) == 1
    assert kept[0] == kept[1]


@pytest.mark.parametrize("damage", [b"", b"garbage" * 1000])
async def test_a_damaged_compiled_network_is_made_anew(bert_folder: Path, tmp_path: Path, damage: bytes) -> None:
    options = ModelsOptions(cache_dir=tmp_path / "cache", precision="f32")
    for _ in range(2):
        async with ModelPool(options) as pool:
            await check(await pool.embedder(str(bert_folder)), bert_folder, "mean")
        (blob,) = options.cache_dir.rglob("*.blob")
        assert blob.read_bytes() != damage
        blob.write_bytes(damage)


async def test_other_weights_of_the_same_shape_do_not_find_it(bert_folder: Path, options: ModelsOptions) -> None:
    precise = options.model_copy(update={"precision": "f32"})
    async with ModelPool(precise) as pool:
        before = await (await pool.embedder(str(bert_folder))).embed(["w1 w2 w3"])
    weights = bert_folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2000:] = bytes(2000)
    weights.write_bytes(data)
    async with ModelPool(precise) as pool:
        after = await (await pool.embedder(str(bert_folder))).embed(["w1 w2 w3"])
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "llama"}, ConfigError, "family 'llama'"),
        ({"hidden_act": "swish"}, ConfigError, "activation 'swish'"),
        ({"position_embedding_type": "relative_key"}, ConfigError, "relative_key"),
        ({"hidden_size": "many"}, ConfigError, "not the configuration of a text encoder"),
        ({"num_hidden_layers": 3}, DataError, "no tensor 'encoder.layer.2"),
        ({"hidden_size": 32}, DataError, "cannot be built"),
    ],
)
async def test_what_is_not_supported_is_said(
    bert_folder: Path, options: ModelsOptions, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    edit(bert_folder, **changes)
    async with ModelPool(options) as pool:
        with pytest.raises(error, match=message):
            await pool.embedder(str(bert_folder))
