"""A device that runs out of memory: the budget, and the ladder that the batcher climbs down. No device is needed."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.errors import OutOfMemory, Unavailable
from penstock.models.base import Encoder, Item, Lane, Pending, TokenIds, Vectors
from penstock.models.batcher import Batcher
from penstock.models.embedder import warm_up
from penstock.models.engine import open_engine
from penstock.models.memory import LONGEST_PAUSE_S, LOOK_S, PAUSE_S, TokenBudget
from penstock.models.metrics import ModelMetrics
from penstock.models.options import BatcherOptions, ModelsOptions
from penstock.models.recipe import read_recipe

OPTIONS = BatcherOptions(slice_ms=1e6, batch_tokens=1024, queue_tokens=100_000)


class SmallDevice(Encoder):
    """An engine with room for `holds` tokens a batch, which may break too. A text's vector: first token, length."""

    def __init__(self, holds: int, *, late: bool = False, broken: Callable[[], bool] = lambda: False) -> None:
        self.holds = holds
        self.late = late  # out of memory only when the batch is waited for
        self.broken = broken
        self.shapes: list[tuple[int, ...]] = []
        self.relieved = 0
        self.closed = False

    @property
    def dimensions(self) -> int:
        return 2

    def start(self, ids: Item, mask: TokenIds) -> Pending:
        self.shapes.append(ids.shape)
        full = ids.size > self.holds
        if full and not self.late:
            raise OutOfMemory("full")
        fails = self.broken()
        vectors = np.stack([ids[:, 0], mask.sum(axis=1)], axis=1).astype(np.float32)

        def wait() -> Vectors:
            if full:
                raise OutOfMemory("full")
            if fails:
                raise Unavailable("broken")
            return vectors

        return wait

    def relieve(self) -> None:
        self.relieved += 1

    def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@asynccontextmanager
async def opened(engine: Encoder, registry: CollectorRegistry, **more: Any) -> AsyncIterator[Batcher]:
    metrics = ModelMetrics(registry)
    async with Batcher(engine, name="m", longest=64, options=OPTIONS, metrics=metrics, **more) as batcher:
        yield batcher


def tokens(first: int, length: int) -> TokenIds:
    return np.array([first] + [1] * (length - 1), np.int32)


async def run(batcher: Batcher, texts: list[TokenIds], lane: Lane = Lane.BULK) -> Vectors:
    call = await batcher.put(texts, lane)
    try:
        await call.done
    finally:
        batcher.forget(call)
    return call.result


# --- the budget -----------------------------------------------------------------------------------------------------


def test_a_budget_is_halved_and_grows_again_slowly() -> None:
    clock = Clock()
    budget = TokenBudget(1000, clock=clock)
    assert budget.tokens == 1000
    assert not budget.refuses(5000)  # a habit, not a limit of the device
    budget.failed(800)
    assert budget.tokens == 400
    assert budget.refuses(401)
    budget.failed(800)  # a batch that was made before
    assert budget.tokens == 400
    clock.now = 1.0
    budget.refresh()
    assert budget.tokens == 400
    grown = []
    for _ in range(6):
        clock.now += LONGEST_PAUSE_S
        budget.refresh()
        grown.append(budget.tokens)
    assert grown[:2] == [501, 627]
    assert grown[-1] == 1000
    assert not budget.refuses(5000)


def test_a_budget_pauses_longer_after_every_failure() -> None:
    clock = Clock()
    budget = TokenBudget(1000, clock=clock)
    for failures in (1, 2, 3):
        budget.failed(100)
        pause_s = PAUSE_S * 2**failures
        clock.now += pause_s - 1
        budget.refresh()
        assert budget.tokens == 50
        clock.now += 1
        budget.refresh()
        assert budget.tokens == 63


def test_free_memory_decides() -> None:
    clock, room = Clock(), [300]
    budget = TokenBudget(1000, room=lambda: room[0], clock=clock)
    assert budget.tokens == 300
    assert budget.refuses(301)
    for free, tokens in ((100, 100), (0, 1), (5000, 1000)):
        room[0] = free
        budget.refresh()
        assert budget.tokens != tokens  # it is not asked all the time
        clock.now += LOOK_S
        budget.refresh()
        assert budget.tokens == tokens
    budget.failed(600)
    assert budget.tokens == 300


# --- the ladder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
async def test_batches_are_halved_until_they_fit(registry: CollectorRegistry, late: bool) -> None:
    engine = SmallDevice(200, late=late)
    async with opened(engine, registry) as batcher:
        results = await asyncio.gather(
            *(run(batcher, [tokens(number, length) for length in (3, 20, 64)]) for number in range(100))
        )
        await run(batcher, [tokens(1, 64)] * 40)
    for number, result in enumerate(results):
        assert result.tolist() == [[number, 3], [number, 20], [number, 64]]
    assert engine.relieved == registry.get_sample_value("penstock_model_out_of_memory_total", {"model": "m"})
    assert all(np.prod(shape) <= 200 for shape in engine.shapes[-10:])  # remembered
    assert (registry.get_sample_value("penstock_model_budget_tokens", {"model": "m"}) or 1e9) <= 200
    assert registry.get_sample_value("penstock_model_tokens_total", {"model": "m", "lane": "bulk"}) == 87 * 100 + 2560
    assert registry.get_sample_value("penstock_model_failures_total", {"model": "m"}) is None


async def test_what_does_not_fit_alone_runs_on_the_spare_engine(registry: CollectorRegistry) -> None:
    engine, spare, made = SmallDevice(40), SmallDevice(10_000), []

    def make_spare() -> Encoder:
        made.append(threading.current_thread().name)
        return spare

    async with opened(engine, registry, spare=make_spare) as batcher:
        short = await run(batcher, [tokens(1, 10)] * 4)
        assert not made
        long = await run(batcher, [tokens(number, 60) for number in range(5)] + [tokens(9, 10)])
        tried = len(engine.shapes)
        again = await run(batcher, [tokens(7, 60)])
        assert len(engine.shapes) == tried  # known by now not to fit
    assert short.tolist() == [[1, 10]] * 4
    assert long.tolist() == [[number, 60] for number in range(5)] + [[9, 10]]
    assert again.tolist() == [[7, 60]]
    assert made == ["model m 0"]
    assert engine.closed
    assert spare.closed
    assert registry.get_sample_value("penstock_model_spared_rows_total", {"model": "m"}) == len(spare.shapes) == 6


async def test_without_a_spare_engine_the_call_fails_and_others_go_on(registry: CollectorRegistry) -> None:
    async with opened(SmallDevice(40), registry) as batcher:
        with pytest.raises(OutOfMemory, match="full"):
            await run(batcher, [tokens(1, 60)])
        assert (await run(batcher, [tokens(1, 10)])).tolist() == [[1, 10]]


async def test_a_spare_engine_that_cannot_be_made_fails_the_call_only(registry: CollectorRegistry) -> None:
    def make_spare() -> Encoder:
        raise Unavailable("no spare")

    async with opened(SmallDevice(40), registry, spare=make_spare) as batcher:
        with pytest.raises(Unavailable, match="no spare"):
            await run(batcher, [tokens(1, 60)])
        assert (await run(batcher, [tokens(1, 10)])).tolist() == [[1, 10]]


async def test_memory_that_comes_back_is_used_again(registry: CollectorRegistry) -> None:
    engine, clock = SmallDevice(100), Clock()
    async with opened(engine, registry, clock=clock) as batcher:
        await run(batcher, [tokens(1, 16)] * 64)
        engine.holds = 10_000
        for _ in range(20):
            clock.now += LONGEST_PAUSE_S
            await run(batcher, [tokens(1, 16)])
        await run(batcher, [tokens(1, 16)] * 64)
    assert engine.shapes[-1] == (64, 16)


@pytest.mark.case(26)
@pytest.mark.parametrize("with_spare", [False, True])
async def test_ten_thousand_requests_under_faults(registry: CollectorRegistry, with_spare: bool) -> None:
    rng = random.Random(21)
    engine = SmallDevice(512, broken=lambda: rng.random() < 0.02)
    clock, engine_luck = Clock(), random.Random(22)
    smallest = 40 if with_spare else 64  # with a spare engine: at times a text of middle length does not fit alone

    class Unsteady(SmallDevice):
        def start(self, ids: Item, mask: TokenIds) -> Pending:
            engine.holds = engine_luck.choice((smallest, 200, 512, 1024))
            engine.late = engine_luck.random() < 0.5
            clock.now += LONGEST_PAUSE_S / 4  # the budget grows, and is too large again
            return engine.start(ids, mask)

    async def request(batcher: Batcher, number: int, lengths: list[int], lane: Lane) -> None:
        result = await run(batcher, [tokens(number, length) for length in lengths], lane)
        assert result.tolist() == [[number, length] for length in lengths]

    spare = {"spare": lambda: SmallDevice(10_000)} if with_spare else {}
    before = asyncio.all_tasks()
    async with opened(Unsteady(0), registry, clock=clock, **spare) as batcher:
        outcomes: list[BaseException | None] = []
        for start in range(0, 10_000, 500):
            tasks = [
                asyncio.create_task(
                    request(
                        batcher, number, [rng.randint(1, 64) for _ in range(rng.randint(1, 4))], rng.choice([*Lane])
                    )
                )
                for number in range(start, start + 500)
            ]
            for task in rng.sample(tasks, 100):
                asyncio.get_running_loop().call_later(rng.random() * 0.05, task.cancel)
            outcomes += await asyncio.gather(*tasks, return_exceptions=True)
        assert not batcher._calls
        assert all(waiting.tokens == 0 and len(waiting) == 0 for waiting in batcher._lanes.values())
        assert not batcher.closed
        assert asyncio.all_tasks() == before
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds <= {type(None), asyncio.CancelledError, Unavailable}
    assert outcomes.count(None) > 7000
    assert Unavailable in kinds
    assert (registry.get_sample_value("penstock_model_out_of_memory_total", {"model": "m"}) or 0) > 100


# --- loading --------------------------------------------------------------------------------------------------------


def test_warming_up_stops_where_memory_ends() -> None:
    engine = SmallDevice(100)
    warm_up(engine, 64, ((1, 16), (4, 16), (8, 64), (16, 64)))
    assert engine.shapes == [(1, 16), (1, 16), (4, 16), (4, 16), (8, 64)]
    assert engine.relieved == 1


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_model_that_does_not_fit_the_device_runs_on_the_processor(
    device: str, model_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load_torch(*_: object, **__: object) -> Encoder:
        raise OutOfMemory("full")

    monkeypatch.setattr("penstock.models.engine.find_device", lambda wanted: "cuda")
    monkeypatch.setattr("penstock.models.engine.load_torch", load_torch)
    options = ModelsOptions(device=device, cache_dir=model_cache)
    folder = Path(__file__).parent / "golden" / "bert"
    if device == "cuda":
        with pytest.raises(OutOfMemory, match="full"):
            open_engine(folder, read_recipe(folder, "m"), options)
        return
    engine = open_engine(folder, read_recipe(folder, "m"), options)
    assert (engine.device, engine.encoder.dimensions) == ("cpu", 16)
    assert "runs on the processor" in caplog.text
