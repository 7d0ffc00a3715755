"""Loading once, aliases, unloading, back-off and warm-up of the model pool."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.errors import ConfigError, MissingDependency, Unavailable
from penstock.models.base import Lane, Role
from penstock.models.embedder import LocalEmbedder
from penstock.models.options import DEFAULT_MODEL, LocalEmbedderOptions, ModelsOptions
from penstock.models.pool import ModelPool

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    names = ("bert", "roberta", "distilbert")
    return [str(shutil.copytree(GOLDEN / name, tmp_path / name)) for name in names]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def small_pool(
    options: ModelsOptions, folders: list[str], registry: CollectorRegistry
) -> AsyncIterator[ModelPool]:
    """Room for two of three models."""
    changes = {"max_loaded": 2, "embedding": folders[0], "aliases": {"tiny": "second", "second": folders[1]}}
    async with ModelPool(options.model_copy(update=changes), registry=registry) as pool:
        yield pool


def loads(registry: CollectorRegistry, model: str, outcome: str = "done") -> float:
    return registry.get_sample_value("penstock_model_loads_total", {"model": model, "outcome": outcome}) or 0


async def test_a_model_is_loaded_once_for_all_who_ask(
    small_pool: ModelPool, folders: list[str], registry: CollectorRegistry
) -> None:
    embedders = await asyncio.gather(*(small_pool.embedder() for _ in range(100)))
    vectors = await asyncio.gather(*(embedder.embed(["w1 w2"]) for embedder in embedders))
    assert loads(registry, folders[0]) == 1
    assert all(np.allclose(vector, vectors[0], atol=1e-2) for vector in vectors)


async def test_a_models_tokenizer_is_read_once_for_all_who_ask(small_pool: ModelPool, folders: list[str]) -> None:
    first, second = await small_pool.embedder(), await small_pool.embedder(folders[0])
    assert first.tokenizer is second.tokenizer


async def test_aliases_lead_to_the_model(small_pool: ModelPool, folders: list[str]) -> None:
    assert small_pool.resolve("tiny") == folders[1]
    assert (await small_pool.embedder("tiny")).info.name == folders[1]
    assert ModelPool(ModelsOptions()).resolve("default") == DEFAULT_MODEL


async def test_the_idle_model_used_longest_ago_goes(
    small_pool: ModelPool, folders: list[str], registry: CollectorRegistry
) -> None:
    first, second = [await small_pool.embedder(folder) for folder in folders[:2]]
    await first.embed(["w1"])
    await small_pool.embedder(folders[2])
    assert {info.name for info in small_pool.infos()} == {folders[0], folders[2]}
    assert registry.get_sample_value("penstock_model_memory_bytes", {"model": folders[1]}) == 0
    # What was given out stays usable: it is loaded again.
    assert (await second.embed(["w1"])).shape == (1, 16)
    assert loads(registry, folders[1]) == 2


async def test_a_model_in_use_is_not_unloaded(small_pool: ModelPool, folders: list[str]) -> None:
    async with small_pool.use(folders[0]) as one, small_pool.use(folders[1]):
        third = asyncio.create_task(small_pool.embedder(folders[2]))
        done, _ = await asyncio.wait([third], timeout=0.1)
        assert not done
        assert not one.closed
    assert (await third).info.name == folders[2]


async def test_many_models_over_few_places(small_pool: ModelPool, folders: list[str]) -> None:
    async def ask(number: int) -> None:
        embedder = await small_pool.embedder(folders[number % 3])
        for _ in range(3):
            vectors = await embedder.embed(["w1 w2 w3"] * (number + 1), lane=Lane.BULK)
            assert vectors.shape == (number + 1, 16)

    await asyncio.gather(*(ask(number) for number in range(12)))
    assert len(small_pool.infos()) <= 2


async def test_a_failed_load_is_tried_again_after_a_pause(
    options: ModelsOptions, folders: list[str], registry: CollectorRegistry
) -> None:
    weights = Path(folders[0]) / "model.safetensors"
    aside = weights.rename(weights.with_suffix(".aside"))
    async with ModelPool(options.model_copy(update={"reload_backoff_s": 0.2}), registry=registry) as pool:
        for _ in range(5):
            with pytest.raises(ConfigError, match=r"has no model\.safetensors"):
                await pool.embedder(folders[0])
        assert loads(registry, folders[0], "failed") == 1
        aside.rename(weights)
        async with asyncio.timeout(10):
            while not pool.infos():
                try:
                    await pool.embedder(folders[0])
                except ConfigError:
                    await asyncio.sleep(0.02)
        assert loads(registry, folders[0]) == 1


async def test_a_broken_engine_is_loaded_again(
    small_pool: ModelPool, folders: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = await small_pool.embedder()
    async with small_pool.use(folders[0]) as model:
        assert isinstance(model, LocalEmbedder)
        monkeypatch.setattr(model._loaded.engine.encoder, "start", lambda *_: 1 / 0)
        with pytest.raises(Unavailable):
            await model.embed(["w1"])
    assert (await embedder.embed(["w1"])).shape == (1, 16)
    assert "broke down" in caplog.text


async def test_an_unknown_model_says_how_to_get_it(options: ModelsOptions) -> None:
    async with ModelPool(options) as pool:
        with pytest.raises(MissingDependency, match=r"not installed and downloads are switched off .* folder"):
            await pool.embedder("nobody/nothing")


async def test_closing_the_pool_ends_waiting_calls(options: ModelsOptions, folders: list[str]) -> None:
    async with ModelPool(options) as pool:
        embedder = await pool.embedder(folders[0])
        call = asyncio.create_task(embedder.embed(["w1 w2 " * 15] * 20_000, lane=Lane.BULK))
        await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await call


async def test_closing_the_pool_ends_those_who_wait_for_a_place(options: ModelsOptions, folders: list[str]) -> None:
    async with ModelPool(options.model_copy(update={"max_loaded": 1})) as pool, pool.use(folders[0]):
        waiting = asyncio.create_task(pool.embedder(folders[1]))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        closing = asyncio.create_task(pool.__aexit__())
        with pytest.raises(Unavailable, match="stopping"):
            await waiting
        await closing


async def test_preload_warms_what_the_options_name(
    options: ModelsOptions, folders: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with ModelPool(options.model_copy(update={"preload": tuple(folders[:2])})) as pool:
        await pool.preload()
        infos = {info.name: info for info in pool.infos()}
    assert set(infos) == set(folders[:2])
    assert all(info.load_s > 0 and info.memory_bytes > 0 for info in infos.values())
    assert caplog.text.count("loaded ") >= 2


async def test_a_load_whose_callers_are_gone_goes_on(
    small_pool: ModelPool, folders: list[str], registry: CollectorRegistry
) -> None:
    callers = [asyncio.create_task(small_pool.embedder()) for _ in range(20)]
    await asyncio.sleep(0)
    for caller in callers[:19]:
        caller.cancel()
    embedder = await callers[19]
    assert (await embedder.embed(["w1"])).shape == (1, 16)
    assert loads(registry, folders[0]) == 1
    gone = asyncio.create_task(small_pool.embedder(folders[1]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await (await small_pool.embedder(folders[1])).embed(["w1"])).shape == (1, 16)
    assert loads(registry, folders[1]) == 1


async def test_one_place_is_enough_for_many(options: ModelsOptions, folders: list[str]) -> None:
    """Each waits for the others' turn to end; nobody's model is taken away before it was used."""
    async with ModelPool(options.model_copy(update={"max_loaded": 1})) as pool:

        async def ask(number: int) -> None:
            async with pool.use(folders[number % 3]) as model:
                assert (await model.embed(["w1"])).shape == (1, 16)

        await asyncio.gather(*(ask(number) for number in range(30)))
        assert len(pool.infos()) == 1


async def test_fewer_dimensions_are_the_first_ones_at_length_one(options: ModelsOptions, folders: list[str]) -> None:
    small = LocalEmbedderOptions(model=folders[0], dimensions=6)
    async with ModelPool(options.model_copy(update={"embedders": {"small": small}, "precision": "f32"})) as pool:
        whole, first = await pool.embedder(folders[0]), await pool.embedder("small")
        texts = ["w1 w2", "w3", "w4 w5 w6"]
        full, short = await whole.embed(texts), await first.embed(texts)
        many = await first.embed(texts * 50, lane=Lane.BULK)
    assert (first.info.name, first.info.dimensions, short.shape) == ("small", 6, (3, 6))
    want = full[:, :6] / np.linalg.norm(full[:, :6], axis=1, keepdims=True)
    assert short == pytest.approx(want, abs=1e-5)
    assert many[120] == pytest.approx(want[0], abs=1e-5)
    assert whole.info.told != first.info.told or whole.info.name != first.info.name


@pytest.mark.case(20)
async def test_more_dimensions_than_there_are_keep_the_worker_from_starting(
    options: ModelsOptions, folders: list[str]
) -> None:
    wide = LocalEmbedderOptions(model=folders[0], dimensions=17)
    async with ModelPool(options.model_copy(update={"embedders": {"wide": wide}, "embedding": "wide"})) as pool:
        with pytest.raises(ConfigError, match=r"has 16 dimensions, the settings ask for 17 .*embedders\.wide"):
            await pool.preload()


async def test_all_that_have_a_name_are_preloaded_as_far_as_there_is_room(
    options: ModelsOptions, folders: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    named = {f"m{number}": LocalEmbedderOptions(model=folder) for number, folder in enumerate(folders)}
    changes = {"embedders": named, "embedding": "m1", "max_loaded": 2}
    async with ModelPool(options.model_copy(update=changes)) as pool:
        await pool.preload()
        assert [info.name for info in pool.infos()] == ["m1", "m0"]
    assert "m2 is not preloaded" in caplog.text


async def test_prefixes_of_the_settings_count(options: ModelsOptions, folders: list[str]) -> None:
    prefixed = LocalEmbedderOptions(model=folders[0], query_prefix="w7 ", passage_prefix="w8 ")
    changes = {"embedders": {"prefixed": prefixed}, "precision": "f32"}
    async with ModelPool(options.model_copy(update=changes)) as pool:
        plain, model = await pool.embedder(folders[0]), await pool.embedder("prefixed")
        for role, text in ((Role.QUERY, "w7 w1"), (Role.PASSAGE, "w8 w1")):
            assert await model.embed(["w1"], role=role) == pytest.approx(await plain.embed([text]), abs=1e-6)
