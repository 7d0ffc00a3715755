"""How a folder's files say that a model is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError, DataError
from penstock.models.base import Role
from penstock.models.prefixes import known_prefixes
from penstock.models.recipe import Pooling, read_recipe

CONFIG = {
    "model_type": "bert",
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 512,
}


def folder(path: Path, **files: Any) -> Path:
    for name, content in {"config": CONFIG, **files}.items():
        file = path / f"{name.replace('__', '/')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return path


def modules(*kinds: str) -> list[dict[str, str]]:
    return [{"path": "pool" if kind == "Pooling" else "", "type": f"sentence_transformers.{kind}"} for kind in kinds]


def test_the_shortest_length_counts(tmp_path: Path) -> None:
    assert read_recipe(folder(tmp_path), "m").max_tokens == 512
    read = read_recipe(folder(tmp_path, tokenizer_config={"model_max_length": 1e30}), "m")
    assert read.max_tokens == 512
    assert read_recipe(folder(tmp_path, sentence_bert_config={"max_seq_length": 256}), "m").max_tokens == 256


def test_roberta_loses_the_positions_before_its_first(tmp_path: Path) -> None:
    config = {**CONFIG, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_recipe(folder(tmp_path, config=config), "m").max_tokens == 512


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode": "cls"}, Pooling.CLS),
    ],
)
def test_pooling_is_read_in_both_forms(tmp_path: Path, config: dict[str, Any], pooling: Pooling) -> None:
    files = {"modules": modules("Transformer", "Pooling", "Normalize"), "pool__config": config}
    assert read_recipe(folder(tmp_path, **files), "m").pooling is pooling


def test_a_plain_encoder_is_pooled_by_its_mean(tmp_path: Path) -> None:
    assert read_recipe(folder(tmp_path), "m").pooling is Pooling.MEAN


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Dense module"):
        read_recipe(folder(tmp_path, modules=modules("Transformer", "Dense")), "m")
    both = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}
    with pytest.raises(ConfigError, match="mean and cls are supported"):
        read_recipe(folder(tmp_path, modules=modules("Transformer", "Pooling"), pool__config=both), "m")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (folder(tmp_path) / "modules.json").write_text("{")
    with pytest.raises(DataError, match=r"modules\.json cannot be read"):
        read_recipe(tmp_path, "m")


def test_prompts_in_the_files_go_before_known_ones(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "ask: ", "document": "doc: "}}
    prefixes = read_recipe(folder(tmp_path, config_sentence_transformers=prompts), "intfloat/e5-base").prefixes
    assert (prefixes.of(Role.QUERY), prefixes.of(Role.PASSAGE)) == ("ask: ", "doc: ")


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("/models/e5-base-v2/", "query: ", "passage: "),
        ("intfloat/multilingual-e5-large-instruct", "Instruct: ", ""),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence", ""),
        ("BAAI/bge-large-zh", "为这个句子", ""),
        ("BAAI/bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("BAAI/bge-m3", "", ""),
        ("intfloat/multilingual-e5-large", "query: ", "passage: "),
        ("Qwen/Qwen3-Embedding-0.6B", "Instruct: ", ""),
        ("mixedbread-ai/mxbai-embed-large-v1", "Represent this sentence", ""),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", "query: ", ""),
        ("nomic-embed-text", "search_query: ", "search_document: "),
        ("sentence-transformers/all-MiniLM-L6-v2", "", ""),
    ],
)
def test_prefixes_known_by_name(name: str, query: str, passage: str) -> None:
    found = known_prefixes(name)
    assert found.query[: len(query) or None] == query
    assert found.passage == passage
