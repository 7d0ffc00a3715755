"""The measuring code measures what it says, on a tiny model."""

from pathlib import Path

import pytest

from penstock.models.bench import bench_embed, bench_interactive, measure_ceiling
from penstock.models.options import ModelsOptions
from penstock.models.pool import ModelPool
from penstock.models.recipe import read_recipe

TINY = Path(__file__).parent / "golden" / "bert"


async def test_embedding_counts_every_text_and_token_once(options: ModelsOptions) -> None:
    texts = [f"w{number % 50} w1 w2" for number in range(150)] + ["w1 " * 100]
    async with ModelPool(options) as pool:
        found = await bench_embed(pool, texts, model=str(TINY))
    assert found.texts == 151
    assert found.tokens == 150 * 5 + 40
    assert found.tokens_per_s * found.seconds == pytest.approx(found.tokens)


async def test_questions_under_load_are_all_answered(options: ModelsOptions) -> None:
    texts = [f"w{number % 50} w1 w2" for number in range(200)]
    async with ModelPool(options) as pool:
        found = await bench_interactive(pool, texts, ["w1", "w2"], rate=50, seconds=0.5, model=str(TINY))
    assert found.questions == 25
    assert 0 < found.p50_ms <= found.p95_ms <= found.max_ms
    assert found.bulk_texts_per_s > 0
    assert found.bulk_alone_texts_per_s > 0


def test_the_ceiling_runs() -> None:
    found = measure_ceiling(read_recipe(TINY, "tiny").network, precision="f32", tokens=64, rounds=2)
    assert found.tokens_per_s > 0
