"""Thousands of calls, cancelled at random, against an engine that fails and providers that do every wrong thing.

What must hold: every call ends, every result is its own, and afterwards there is nothing left: no task, socket, slot,
waiting row or memory. The whole thing runs with `-m slow`; the small one always.
"""

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.errors import ProviderError, Unavailable
from penstock.models.base import Encoder, Lane, Pending, TokenIds
from penstock.models.batcher import Batcher
from penstock.models.generator import GenerationRequest, Message
from penstock.models.generator_options import GeneratorOptions
from penstock.models.metrics import ModelMetrics
from penstock.models.openai_generator import OpenAIGenerator
from penstock.models.options import BatcherOptions, ModelsOptions, RemoteEmbedderOptions, RemoteRerankerOptions
from penstock.models.pool import ModelPool
from penstock.models.remote_embedder import RemoteEmbedder
from penstock.models.remote_reranker import RemoteReranker
from penstock.testing.behaviour import Behaviour, Fault
from penstock.testing.provider import FakeProvider
from penstock.testing.vectors import embed as fake_vector

pytestmark = pytest.mark.timeout(120)

AT_ONCE = 200
DIMENSIONS = 64
MIB = 1024 * 1024
FAULTS = (
    Fault.HANG,
    Fault.STATUS,
    Fault.RESET,
    Fault.RESET_MID,
    Fault.CUT,
    Fault.TRUNCATED,
    Fault.HTML,
    Fault.STALL,
    Fault.BROKEN_JSON,
    Fault.NAN,
    Fault.WRONG_COUNT,
    Fault.WRONG_INDEX,
)


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> None:
    """The whole thing only where it is asked for."""
    if request.node.get_closest_marker("slow") and "slow" not in request.config.option.markexpr:
        pytest.skip("takes a minute: -m slow")


class FailingEncoder(Encoder):
    """A text's vector is (its first token, its length); one batch in `every` fails."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._batches = 0

    @property
    def dimensions(self) -> int:
        return 2

    def start(self, ids: TokenIds, mask: TokenIds) -> Pending:
        self._batches += 1
        if self._batches % self._every == 0:
            raise Unavailable("The engine failed, as it should.")
        vectors = np.stack([ids[:, 0], mask.sum(axis=1)], axis=1).astype(np.float32)
        return lambda: vectors

    def close(self) -> None:
        pass


class Leftovers:
    """What the process has now, to be compared with what it has later."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = len(asyncio.all_tasks())
        self.files = open_files()
        self.rss_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def check(self, *, idle_connections: int = 0) -> None:
        """That nothing is left, once closed sockets had a moment to go; of idle connections both ends are here."""
        files = self.files + 2 * idle_connections
        for _ in range(200):
            if len(asyncio.all_tasks()) <= self.tasks and open_files() <= files:
                break
            await asyncio.sleep(0.01)
        now = Leftovers()
        assert now.tasks <= self.tasks
        assert now.files <= files
        assert now.rss_bytes - self.rss_bytes < 64 * MIB


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def batcher() -> AsyncIterator[Batcher]:
    made = Batcher(
        FailingEncoder(every=50),
        name="stressed",
        longest=64,
        options=BatcherOptions(queue_tokens=4096, batch_tokens=512),
        metrics=ModelMetrics(CollectorRegistry()),
    )
    async with made:
        yield made


@pytest.mark.case(26)
@pytest.mark.parametrize("requests", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_the_batcher_forgets_nobody_and_keeps_nothing(
    batcher: Batcher, requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(7)
    ended: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> None:
        texts = [np.full(chance.randint(1, 60), number % 1000, np.int32) for _ in range(chance.randint(1, 12))]
        call = None
        try:
            call = await batcher.put(texts, chance.choice(list(Lane)))
            await call.done
        except Unavailable:
            ended["failed"] += 1
            return
        finally:
            if call is not None:
                batcher.forget(call)
        assert list(call.result[:, 1]) == [len(text) for text in texts]
        assert set(call.result[:, 0]) == {number % 1000}
        ended["ok"] += 1

    async def one(number: int) -> None:
        async with turns:
            task = asyncio.create_task(ask(number))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.01)
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                ended["cancelled"] += 1

    before = Leftovers()
    async with asyncio.timeout(100):
        await asyncio.gather(*(one(number) for number in range(requests)))
    assert sum(ended.values()) == requests
    assert ended["ok"] > requests / 3
    assert ended["cancelled"]
    assert ended["failed"]
    assert not batcher._calls
    assert all(not len(lane) and not lane.tokens for lane in batcher._lanes.values())
    await before.check()


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider(Behaviour(dimensions=DIMENSIONS)) as provider:
        yield provider


@pytest.fixture
async def pool(provider: FakeProvider, options: ModelsOptions) -> AsyncIterator[ModelPool]:
    common = {
        "base_url": provider.url,
        "model": "fake",
        "timeout_s": 3,
        "total_s": 20,
        "max_retries": 1,
        "backoff_s": 0.01,
        "breaker_failures": 1_000_000,
        "max_concurrency": 32,
    }
    embedder = RemoteEmbedderOptions.model_validate({"engine": "openai", **common})
    reranker = RemoteRerankerOptions.model_validate({"engine": "http", **common})
    changes = {"embedders": {"cloud": embedder}, "rerankers": {"cross": reranker}}
    async with ModelPool(options.model_copy(update=changes)) as pool:
        yield pool


@pytest.fixture
async def generator(provider: FakeProvider) -> AsyncIterator[OpenAIGenerator]:
    made = OpenAIGenerator(
        GeneratorOptions(
            base_url=provider.url,
            model="fake",
            first_token_s=3,
            idle_s=3,
            total_s=20,
            max_retries=1,
            backoff_s=0.01,
            breaker_failures=1_000_000,
        )
    )
    async with made:
        yield made


@pytest.mark.case(21, 22, 23, 24, 25, 26)
@pytest.mark.parametrize("requests", [600, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_providers_that_do_every_wrong_thing_leave_nothing_behind(
    provider: FakeProvider,
    pool: ModelPool,
    generator: OpenAIGenerator,
    requests: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("ERROR")
    chance = random.Random(11)
    ended: Counter[str] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)
    embedder, reranker = await pool.embedder("cloud"), await pool.reranker("cross")

    async def embed(number: int) -> None:
        text = f"passage number {number}"
        (vector,) = await embedder.embed([text], lane=chance.choice(list(Lane)))
        assert vector == pytest.approx(fake_vector(text, DIMENSIONS), abs=1e-5)

    async def rerank(number: int) -> None:
        texts = [f"passage number {number}", "something else", f"a third {number}"]
        scores = await reranker.rerank(f"passage number {number}", texts)
        assert int(scores.argmax()) == 0

    async def generate(number: int) -> None:
        request = GenerationRequest(system="s", messages=[Message(role="user", text=f"question {number}")])
        deltas = generator.generate(request)
        try:
            finished = [delta.finish async for delta in deltas]
        finally:
            await deltas.aclose()
        assert finished[-1] is not None

    async def one(number: int) -> None:
        async with turns:
            task = asyncio.create_task(chance.choice((embed, rerank, generate))(number))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.05)
                task.cancel()
            try:
                await task
                ended["ok"] += 1
            except asyncio.CancelledError:
                ended["cancelled"] += 1
            except ProviderError as error:
                ended[error.code] += 1
            if number % 20 == 0:
                provider.script.queue(
                    Behaviour(fault=chance.choice(FAULTS), status=chance.choice([429, 500]), dimensions=DIMENSIONS)
                )

    await generate(0)
    before = Leftovers()
    async with asyncio.timeout(100):
        await asyncio.gather(*(one(number) for number in range(requests)))
    assert sum(ended.values()) == requests
    assert ended["ok"] > requests / 4
    assert ended["cancelled"]
    await provider.idle()
    provider.script.stand(provider.script.standing)  # a fault that met no request must not meet the check
    await check_slots(pool, generator)
    await before.check(idle_connections=3 * 32)


async def check_slots(pool: ModelPool, generator: OpenAIGenerator) -> None:
    """Nobody is in flight, and the next call goes through."""
    async with pool.use("cloud") as embedder, pool.use_reranker("cross") as reranker:
        assert isinstance(embedder, RemoteEmbedder)
        assert isinstance(reranker, RemoteReranker)
        assert (embedder.in_flight, reranker.in_flight) == (0, 0)
        assert (await embedder.embed(["still there"])).shape == (1, DIMENSIONS)
    assert all(endpoint._limit.in_flight == 0 for endpoint in generator._endpoints)
