"""Ready ONNX graphs are used as they are. The test writes the file itself: a lookup table as a network of one node.

Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, in Protocol Buffers' wire format.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.errors import ConfigError
from penstock.models.options import LocalRerankerOptions, ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.rerank import probabilities

GOLDEN = Path(__file__).parent / "golden" / "bert"
FLOAT, INT64 = 1, 7
Part = int | str | bytes


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(*fields: tuple[int, Part]) -> bytes:
    """Fields by number; integers as varints, all else with its length before it."""
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def value_info(name: str, kind: int, *axes: str | int) -> bytes:
    dims = [(1, message((1, axis) if isinstance(axis, int) else (2, axis))) for axis in axes]
    return message((1, name), (2, message((1, message((1, kind), (2, message(*dims)))))))


def tensor(name: str, array: NDArray[np.float32]) -> bytes:
    return message(*((1, size) for size in array.shape), (2, FLOAT), (8, name), (9, array.tobytes()))


def node(kind: str, inputs: list[str], output: str, *attributes: tuple[str, int]) -> bytes:
    attrs = [(5, message((1, name), (3, value), (20, 2))) for name, value in attributes]
    return message(*((1, name) for name in inputs), (2, output), (4, kind), *attrs)


def model(nodes: list[bytes], table: NDArray[np.float32], inputs: list[str], output: bytes) -> bytes:
    graph = message(
        *((1, one) for one in nodes),
        (2, "table"),
        (5, tensor("table", table)),
        *((11, value_info(name, INT64, "rows", "length")) for name in inputs),
        (12, output),
    )
    return message((1, 8), (7, graph), (8, message((1, ""), (2, 13))))


def folder_of(path: Path, onnx: bytes, place: str, **config: object) -> Path:
    path.mkdir()
    shutil.copy(GOLDEN / "tokenizer.json", path)
    told = json.loads((GOLDEN / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**told, **config}))
    file = path / place
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(onnx)
    return path


@pytest.fixture
def table() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(64, 16)).astype(np.float32)


@pytest.mark.parametrize("place", ["onnx/model.onnx", "model.onnx"])
async def test_token_vectors_are_pooled(
    tmp_path: Path, options: ModelsOptions, table: NDArray[np.float32], place: str
) -> None:
    output = value_info("last_hidden_state", FLOAT, "rows", "length", 16)
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    onnx = model([node("Gather", ["table", "input_ids"], "last_hidden_state")], table, inputs, output)
    folder = folder_of(tmp_path / "m", onnx, place)
    texts = ["w1 w2 w3", "w7", "w5 w6 w7 w8 w9 w10 w11"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    means = np.stack([table[tokenizer.encode(text).ids].mean(axis=0) for text in texts])
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        embedder = await pool.embedder(str(folder))
        vectors = await embedder.embed(texts)
    assert embedder.info.memory_bytes == (folder / place).stat().st_size
    assert vectors == pytest.approx(means / np.linalg.norm(means, axis=1, keepdims=True), abs=1e-5)


async def test_text_vectors_are_only_brought_to_length_one(
    tmp_path: Path, options: ModelsOptions, table: NDArray[np.float32]
) -> None:
    nodes = [
        node("Gather", ["table", "input_ids"], "tokens"),
        message((1, "tokens"), (2, "sentence_embedding"), (4, "ReduceMax"), (5, axes(1)), (5, keepdims(0))),
    ]
    output = value_info("sentence_embedding", FLOAT, "rows", 16)
    folder = folder_of(tmp_path / "m", model(nodes, table, ["input_ids"], output), "model.onnx")
    async with ModelPool(options.model_copy(update={"precision": "f32"})) as pool:
        (vector,) = await (await pool.embedder(str(folder))).embed(["w1"])
    # The shortest shape has padding, whose token (0) counts with the others: it is the graph's own affair.
    ids = [*Tokenizer.from_file(str(folder / "tokenizer.json")).encode("w1").ids, 0]
    want = table[ids].max(axis=0)
    assert vector == pytest.approx(want / np.linalg.norm(want), abs=1e-5)


def axes(*values: int) -> bytes:
    return message((1, "axes"), *((8, value) for value in values), (20, 7))


def keepdims(value: int) -> bytes:
    return message((1, "keepdims"), (3, value), (20, 2))


async def test_a_cross_encoder_gives_its_logits(
    tmp_path: Path, options: ModelsOptions, table: NDArray[np.float32]
) -> None:
    """The logit is the largest entry of the texts' tokens in a table of one column."""
    column = table[:, :1].copy()
    column[0] = -9  # padding
    nodes = [
        node("Gather", ["table", "input_ids"], "tokens"),
        message((1, "tokens"), (2, "logits"), (4, "ReduceMax"), (5, axes(1)), (5, keepdims(0))),
    ]
    onnx = model(nodes, column, ["input_ids"], value_info("logits", FLOAT, "rows", 1))
    folder = folder_of(tmp_path / "m", onnx, "onnx/model.onnx", id2label={"0": "LABEL_0"})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = ["w1", "w2 w3", "w40 w41 w42"]
    want = [column[tokenizer.encode("w9", text).ids].max() for text in texts]
    changes = {"rerankers": {"tiny": LocalRerankerOptions(model=str(folder))}, "precision": "f32"}
    async with ModelPool(options.model_copy(update=changes)) as pool:
        scores = await (await pool.reranker("tiny")).rerank("w9", texts)
    assert scores == pytest.approx(probabilities(np.array(want, np.float32)), abs=1e-5)


async def test_a_graph_with_other_inputs_is_refused(
    tmp_path: Path, options: ModelsOptions, table: NDArray[np.float32]
) -> None:
    output = value_info("last_hidden_state", FLOAT, "rows", "length", 16)
    onnx = model([node("Gather", ["table", "pixels"], "last_hidden_state")], table, ["pixels"], output)
    async with ModelPool(options) as pool:
        with pytest.raises(ConfigError, match="wants an input 'pixels'"):
            await pool.embedder(str(folder_of(tmp_path / "m", onnx, "model.onnx")))
