"""Embeddings and rankings over HTTP: what comes is checked, what fails is asked again, nothing is left behind."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.errors import ConfigError, InvalidInput, ProviderError
from penstock.models.base import Lane, Role
from penstock.models.options import ModelsOptions, RemoteEmbedderOptions, RemoteRerankerOptions
from penstock.models.pool import ModelPool
from penstock.models.prefixes import Prefixes
from penstock.models.remote_embedder import RemoteEmbedder, split
from penstock.models.remote_replies import BadReply, read_embeddings, read_scores
from penstock.models.remote_reranker import RemoteReranker
from penstock.models.remote_tokenizer import cut, estimate
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider
from penstock.testing.vectors import embed as fake_vector

KEY = "sk-very-secret"
TEXTS = ["the gate is open", "the turbine stands still", "水流很急", "steel"]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(Behaviour(dimensions=64, api_key=KEY)) as provider:
        yield provider


def stand(provider: FakeProvider, **changes: Any) -> None:
    provider.script.stand(msgspec.structs.replace(Behaviour(dimensions=64, api_key=KEY), **changes))


def remote(provider: FakeProvider, **changes: Any) -> RemoteEmbedderOptions:
    given = {"engine": "openai", "base_url": provider.url, "api_key": KEY, "model": "fake", "backoff_s": 0.01}
    return RemoteEmbedderOptions.model_validate({**given, **changes})


def ranking(provider: FakeProvider, **changes: Any) -> RemoteRerankerOptions:
    given = {"engine": "http", "base_url": provider.url, "api_key": KEY, "model": "fake", "backoff_s": 0.01}
    return RemoteRerankerOptions.model_validate({**given, **changes})


def settings(options: ModelsOptions, *models: RemoteEmbedderOptions | RemoteRerankerOptions) -> ModelsOptions:
    changes: dict[str, Any] = {"preload": ()}
    for model in models:
        changes["rerankers" if isinstance(model, RemoteRerankerOptions) else "embedders"] = {"cloud": model}
    return options.model_copy(update=changes)


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.002)


@pytest.fixture
async def embedder(provider: FakeProvider, options: ModelsOptions) -> AsyncIterator[RemoteEmbedder]:
    async with ModelPool(settings(options, remote(provider))) as pool, pool.use("cloud") as model:
        assert isinstance(model, RemoteEmbedder)
        yield model


@pytest.fixture
async def reranker(provider: FakeProvider, options: ModelsOptions) -> AsyncIterator[RemoteReranker]:
    async with ModelPool(settings(options, ranking(provider))) as pool, pool.use_reranker("cloud") as model:
        assert isinstance(model, RemoteReranker)
        yield model


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_vectors_come_in_order_in_either_encoding(
    provider: FakeProvider, options: ModelsOptions, encoding: str
) -> None:
    async with ModelPool(settings(options, remote(provider, encoding=encoding))) as pool:
        embedder = await pool.embedder("cloud")
        vectors = await embedder.embed(TEXTS)
    assert embedder.info.dimensions == 64
    assert embedder.info.device == "remote"
    assert vectors.dtype == np.float32
    assert vectors == pytest.approx(np.stack([fake_vector(text, 64) for text in TEXTS]), abs=1e-6)
    assert provider.seen[-1]["encoding_format"] == encoding
    assert "dimensions" not in provider.seen[-1]


async def test_no_texts_are_not_asked_for(embedder: RemoteEmbedder, provider: FakeProvider) -> None:
    asked = provider.stats.requests
    assert (await embedder.embed([])).shape == (0, 64)
    assert provider.stats.requests == asked


async def test_calls_are_split_by_texts_and_bytes(provider: FakeProvider, options: ModelsOptions) -> None:
    async with ModelPool(settings(options, remote(provider, batch_texts=3, batch_bytes=30))) as pool:
        embedder = await pool.embedder("cloud")
        provider.seen.clear()
        texts = [f"text number {number}" for number in range(10)]
        vectors = await embedder.embed(texts, lane=Lane.BULK)
    assert vectors == pytest.approx(np.stack([fake_vector(text, 64) for text in texts]), abs=1e-6)
    sizes = [len(body["input"]) for body in provider.seen]
    assert sum(sizes) == 10
    assert max(sizes) == 2


def test_a_text_that_is_too_large_goes_alone() -> None:
    assert list(split(["a", "b" * 100, "c", "d"], 10, 5)) == [["a"], ["b" * 100], ["c", "d"]]
    assert list(split(["水" * 3, "水"], 10, 9)) == [["水" * 3], ["水"]]


async def test_prefixes_are_those_of_the_name(provider: FakeProvider, options: ModelsOptions) -> None:
    async with ModelPool(settings(options, remote(provider, model="multilingual-e5-large"))) as pool:
        embedder = await pool.embedder("cloud")
        await embedder.embed(["什么"], role=Role.QUERY)
        assert provider.seen[-1]["input"] == ["query: 什么"]
    given = remote(provider, model="multilingual-e5-large", query_prefix="问：", passage_prefix="")
    async with ModelPool(settings(options, given)) as pool:
        embedder = await pool.embedder("cloud")
        await embedder.embed(["什么"], role=Role.QUERY)
        assert provider.seen[-1]["input"] == ["问：什么"]
        await embedder.embed(["什么"])
        assert provider.seen[-1]["input"] == ["什么"]


@pytest.mark.case(25)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.WRONG_COUNT, "3 results for 4 texts"),
        (Fault.WRONG_DIMENSION, "different dimensions"),
        (Fault.NAN, "NaN"),
        (Fault.INFINITE, "infinite"),
        (Fault.WRONG_INDEX, "index"),
        (Fault.HTML, "something else than embeddings"),
        (Fault.ERROR_200, "an error"),
    ],
)
@pytest.mark.parametrize("encoding", ["base64", "float"])
async def test_a_wrong_reply_is_refused_whole(
    provider: FakeProvider, options: ModelsOptions, fault: Fault, said: str, encoding: str
) -> None:
    async with ModelPool(settings(options, remote(provider, encoding=encoding))) as pool:
        embedder = await pool.embedder("cloud")
        stand(provider, fault=fault)
        asked = provider.stats.requests
        with pytest.raises(ProviderError, match=f"127.0.0.1.*{said}|127.0.0.1.*JSON") as raised:
            await embedder.embed(TEXTS)
        assert provider.stats.requests - asked == 3
        assert raised.value.code == "bad_reply"
        assert KEY not in str(raised.value)


@pytest.mark.case(25)
async def test_a_whole_reply_of_another_dimension_is_refused(embedder: RemoteEmbedder, provider: FakeProvider) -> None:
    stand(provider, dimensions=8)
    with pytest.raises(ProviderError, match="8 dimensions instead of 64"):
        await embedder.embed(TEXTS)


@pytest.mark.case(25)
async def test_order_is_taken_from_the_index(embedder: RemoteEmbedder, provider: FakeProvider) -> None:
    stand(provider, fault=Fault.REORDERED)
    assert await embedder.embed(TEXTS) == pytest.approx(np.stack([fake_vector(t, 64) for t in TEXTS]), abs=1e-6)


async def test_a_broken_reply_is_asked_for_again(embedder: RemoteEmbedder, provider: FakeProvider) -> None:
    provider.script.queue(Behaviour(fault=Fault.NAN, dimensions=64, api_key=KEY))
    provider.script.queue(Behaviour(fault=Fault.RESET, dimensions=64, api_key=KEY))
    assert (await embedder.embed(TEXTS)).shape == (4, 64)


@pytest.mark.case(20)
async def test_other_dimensions_than_the_settings_say_are_refused_at_start(
    provider: FakeProvider, options: ModelsOptions
) -> None:
    async with ModelPool(settings(options, remote(provider, dimensions=8))) as pool:
        assert (await (await pool.embedder("cloud")).embed(["a"])).shape == (1, 8)
    reply = json.dumps({"data": [{"index": 0, "embedding": [1.0, 2.0]}]}).encode()
    async with ModelPool(settings(options, remote(provider, dimensions=8))) as pool:
        made = RemoteEmbedder(
            "cloud",
            remote(provider, dimensions=8),
            options,
            prefixes=Prefixes(),
            executors=pool._executors,
            metrics=pool._metrics,
        )
        with pytest.raises(ConfigError, match=r"2 dimensions, not the 8 .*models\.embedders\.cloud\.dimensions"):
            made._read(reply, 1)


@pytest.mark.case(21)
async def test_429_lowers_what_is_in_flight_and_every_call_succeeds(
    provider: FakeProvider, options: ModelsOptions
) -> None:
    given = remote(provider, max_concurrency=16, max_retries=8, batch_texts=1)
    async with ModelPool(settings(options, given)) as pool:
        embedder = await pool.embedder("cloud")
        stand(provider, max_concurrency=4, first_token_s=0.01, retry_after_s=0.02)
        vectors = await embedder.embed([f"text {number}" for number in range(60)], lane=Lane.BULK)
    assert vectors.shape == (60, 64)
    assert provider.stats.requests < 60 * 3


@pytest.mark.case(22)
@pytest.mark.parametrize(("status", "tries"), [(500, 3), (503, 3), (401, 1), (400, 1)])
async def test_tries_are_bounded_and_the_key_stays_secret(
    embedder: RemoteEmbedder, provider: FakeProvider, status: int, tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    stand(provider, fault=Fault.STATUS, status=status)
    asked = provider.stats.requests
    with pytest.raises(ProviderError, match=f"status {status}") as raised:
        await embedder.embed(["a"])
    assert provider.stats.requests - asked == tries
    assert KEY not in str(raised.value) + caplog.text


@pytest.mark.case(22)
async def test_a_failing_provider_is_left_alone_for_a_while(
    provider: FakeProvider, options: ModelsOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = remote(provider, max_retries=0, breaker_failures=3, breaker_cooldown_s=60)
    async with ModelPool(settings(options, given)) as pool:
        embedder = await pool.embedder("cloud")
        stand(provider, fault=Fault.STATUS, status=500)
        asked = provider.stats.requests
        for _ in range(20):
            with pytest.raises(ProviderError):
                await embedder.embed(["a"])
        assert provider.stats.requests - asked == 3
        stand(provider)
        async with pool.use("cloud") as model:
            assert isinstance(model, RemoteEmbedder)
            monkeypatch.setattr(model._call._breaker, "_clock", lambda: time.monotonic() + 61)
        assert (await embedder.embed(["a"])).shape == (1, 64)


@pytest.mark.case(23)
async def test_a_provider_that_hangs_is_given_up_and_the_slot_is_free(
    provider: FakeProvider, options: ModelsOptions
) -> None:
    given = remote(provider, timeout_s=1, max_retries=1, max_concurrency=1)
    async with ModelPool(settings(options, given)) as pool, pool.use("cloud") as embedder:
        assert isinstance(embedder, RemoteEmbedder)
        stand(provider, fault=Fault.HANG)
        with pytest.raises(ProviderError, match="within 1 s"):
            await embedder.embed(["a"])
        assert embedder.in_flight == 0
        stand(provider)
        assert (await embedder.embed(["a"])).shape == (1, 64)


@pytest.mark.case(26)
async def test_a_cancelled_call_closes_its_connection(embedder: RemoteEmbedder, provider: FakeProvider) -> None:
    stand(provider, fault=Fault.HANG)
    calls = [asyncio.create_task(embedder.embed(["a"])) for _ in range(8)]
    async with asyncio.timeout(30):
        await until(lambda: provider.stats.open == 8)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: not provider.connections.open)
    assert embedder.in_flight == 0


async def test_a_question_goes_before_waiting_bulk_work(provider: FakeProvider, options: ModelsOptions) -> None:
    async with ModelPool(settings(options, remote(provider, max_concurrency=1, batch_texts=1))) as pool:
        embedder = await pool.embedder("cloud")
        stand(provider, first_token_s=0.005)
        provider.seen.clear()
        bulk = asyncio.create_task(embedder.embed([f"bulk {n}" for n in range(10)], lane=Lane.BULK))
        async with asyncio.timeout(30):
            await until(lambda: bool(provider.seen))
        await embedder.embed(["question"])
        assert len(provider.seen) <= 4
        await bulk


async def test_half_a_surrogate_pair_is_refused(embedder: RemoteEmbedder, reranker: RemoteReranker) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        await embedder.embed(["good", "bad \ud800"])
    with pytest.raises(InvalidInput, match="Unicode"):
        await reranker.rerank("bad \ud800", ["good"])


async def test_a_provider_that_is_away_does_not_keep_the_worker_from_starting(
    options: ModelsOptions, caplog: pytest.LogCaptureFixture
) -> None:
    away = RemoteEmbedderOptions(engine="openai", base_url="http://127.0.0.1:9/v1", model="m", max_retries=0)
    changed = settings(options, away).model_copy(update={"preload": ("cloud",)})
    async with ModelPool(changed) as pool:
        await pool.preload()
        with pytest.raises(ProviderError, match="cannot be reached"):
            await pool.embedder("cloud")
    assert "not there yet" in caplog.text


# --- tokens ---------------------------------------------------------------------------------------------------------


async def test_without_a_tokenizer_tokens_are_estimated(embedder: RemoteEmbedder) -> None:
    assert len(embedder.tokenizer.encode("The turbine 水流很急!").ids) == 1 + 2 + 4 + 1
    assert embedder.tokenizer_file.is_file()


async def test_a_tokenizer_may_be_named(provider: FakeProvider, options: ModelsOptions) -> None:
    golden = Path(__file__).parent / "golden" / "bert"
    async with ModelPool(settings(options, remote(provider, tokenizer=str(golden)))) as pool:
        embedder = await pool.embedder("cloud")
    assert embedder.tokenizer_file == golden / "tokenizer.json"


async def test_a_text_beyond_the_limit_is_cut(provider: FakeProvider, options: ModelsOptions) -> None:
    async with ModelPool(settings(options, remote(provider, max_tokens=16))) as pool:
        embedder = await pool.embedder("cloud")
        await embedder.embed(["水" * 40, "short", "abcd " * 16])
    assert [len(text) for text in provider.seen[-1]["input"]] == [16, 5, 80]


def test_cutting_keeps_what_fits() -> None:
    tokenizer = estimate()
    assert cut(tokenizer, "one two three four", 2) == "one two"
    assert cut(tokenizer, "one two", 100) == "one two"


# --- rankings -------------------------------------------------------------------------------------------------------


async def test_scores_come_in_the_order_of_the_texts(reranker: RemoteReranker, provider: FakeProvider) -> None:
    scores = await reranker.rerank("is the gate open", [*reversed(TEXTS)])
    assert scores.shape == (4,)
    assert int(scores.argmax()) == 3
    assert 0 <= scores.min() <= scores.max() <= 1
    body = provider.seen[-1]
    assert (body["model"], body["query"], body["top_n"]) == ("fake", "is the gate open", 4)
    assert body["documents"] == [*reversed(TEXTS)]
    assert (await reranker.rerank("q", [])).shape == (0,)


@pytest.mark.case(25)
@pytest.mark.parametrize("fault", [Fault.WRONG_COUNT, Fault.WRONG_INDEX, Fault.NAN, Fault.HTML, Fault.ERROR_200])
async def test_a_wrong_ranking_is_refused(reranker: RemoteReranker, provider: FakeProvider, fault: Fault) -> None:
    stand(provider, fault=fault)
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1"):
        await reranker.rerank("gate", TEXTS)


@pytest.mark.case(23)
async def test_a_ranking_that_takes_too_long_is_given_up(provider: FakeProvider, options: ModelsOptions) -> None:
    async with ModelPool(settings(options, ranking(provider, timeout_s=0.1, total_s=0.2))) as pool:
        reranker = await pool.reranker("cloud")
        stand(provider, fault=Fault.HANG)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ProviderError, match="did not answer"):
            await reranker.rerank("gate", TEXTS)
        assert asyncio.get_running_loop().time() - began < 20


def test_raw_logits_go_through_the_logistic_function() -> None:
    reply = {"results": [{"index": 1, "relevance_score": 3.0}, {"index": 0, "relevance_score": -2.0}]}
    scores = read_scores(json.dumps(reply).encode(), 2)
    assert scores == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(-3))])


@pytest.mark.case(25)
@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": [{"index": 0, "embedding": []}]}',
        b'{"data": [{"index": 0, "embedding": [0, 0]}]}',
        b'{"data": [{"index": 0, "embedding": [1, null]}]}',
        b'{"data": [{"index": 0, "embedding": [1, NaN]}]}',
        b'{"data": [{"index": 0, "embedding": [1e39, 0]}]}',
        b'{"data": [{"index": 1, "embedding": [1, 0]}]}',
        b'{"data": [{"index": -1, "embedding": [1, 0]}]}',
        b'{"data": [{"index": 0, "embedding": "!!!!"}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"data": [{"index": 0, "embedding": {"a": 1}}]}',
        b'\xff{"data": []}',
    ],
)
def test_what_is_no_vector_is_refused(reply: bytes) -> None:
    with pytest.raises(BadReply):
        read_embeddings(reply, 1)


async def test_calls_are_counted_by_outcome(provider: FakeProvider, options: ModelsOptions) -> None:
    registry = CollectorRegistry()
    async with ModelPool(settings(options, remote(provider, max_retries=1)), registry=registry) as pool:
        embedder = await pool.embedder("cloud")
        provider.script.queue(Behaviour(fault=Fault.NAN, dimensions=64, api_key=KEY))
        await embedder.embed(["a"])
    labels = {"provider": provider.url.split("/")[2], "model": "fake"}

    def count(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"penstock_remote_model_{name}_total", {**labels, **more})

    assert count("calls", outcome="ok") == 2
    assert count("calls", outcome="bad_reply") == 1
    assert count("retries") == 1
