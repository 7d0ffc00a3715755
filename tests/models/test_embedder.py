"""The default model against the reference, and what must not change a vector."""

import base64
import json
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from penstock.errors import InvalidInput
from penstock.models.base import Lane, Role, Vectors
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool

GOLDEN = json.loads((Path(__file__).parent / "golden" / "minilm.json").read_text())
TEXTS = [row["text"] for row in GOLDEN["rows"]]
VECTORS = np.stack([np.frombuffer(base64.b64decode(row["vector"]), "<f4") for row in GOLDEN["rows"]])
NEARNESS = {"f32": 0.9999, "bf16": 0.999, "auto": 0.999}
"""auto may round weights to 8 bits, which texts without a single word show most."""


def cosines(a: Vectors, b: Vectors) -> Vectors:
    return np.asarray((a * b).sum(axis=1), np.float32)


@pytest.fixture(params=sorted(NEARNESS))
def precise(request: pytest.FixtureRequest, options: ModelsOptions) -> ModelsOptions:
    if request.param == "bf16" and "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not do bf16")
    return options.model_copy(update={"precision": request.param})


@pytest.mark.usefixtures("minilm_folder")
async def test_vectors_are_those_of_the_reference(precise: ModelsOptions) -> None:
    async with ModelPool(precise) as pool:
        embedder = await pool.embedder()
        together = await embedder.embed(TEXTS)
        alone = np.concatenate([await embedder.embed([text]) for text in TEXTS])
        bulk = await embedder.embed(TEXTS * 6, lane=Lane.BULK)
    assert embedder.info.max_tokens == GOLDEN["max_tokens"]
    near = NEARNESS[precise.precision]
    for found in (together, alone, bulk.reshape(6, *VECTORS.shape)[4]):
        assert cosines(found, VECTORS).min() >= near
        assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-3)
    assert cosines(bulk, np.tile(alone, (6, 1))).min() >= near


async def test_order_and_shape_hold_over_many_batches(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    texts = [f"passage {number} " + "word " * (number * 7 % 40) for number in range(200)]
    vectors = await embedder.embed(texts, lane=Lane.BULK)
    assert vectors.shape == (200, embedder.info.dimensions)
    assert vectors.dtype == np.float32
    for place in (0, 63, 64, 150, 199):
        assert cosines(vectors[place : place + 1], await embedder.embed([texts[place]]))[0] > 0.999


async def test_a_long_text_counts_with_its_first_tokens(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    head = "water " * (embedder.info.max_tokens - 2)
    vectors = await embedder.embed([head, head + "entirely different ending about cats " * 50])
    assert cosines(vectors[:1], vectors[1:])[0] > 0.9999


async def test_no_texts_give_no_vectors(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    assert (await embedder.embed([])).shape == (0, embedder.info.dimensions)


async def test_half_a_surrogate_pair_is_refused(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    with pytest.raises(InvalidInput, match="Unicode"):
        await embedder.embed(["good", "bad \ud800"])


async def test_the_tokenizer_counts_all_of_a_long_text(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    assert len(embedder.tokenizer.encode("water " * 1000).ids) == 1002
    assert embedder.tokenizer_file.is_file()


async def test_a_model_without_prefixes_treats_both_roles_alike(pool: ModelPool) -> None:
    embedder = await pool.embedder()
    query, passage = [await embedder.embed(["same text"], role=role) for role in Role]
    assert np.array_equal(query, passage)
