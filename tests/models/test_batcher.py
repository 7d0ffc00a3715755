"""Order, lanes, cancellation, bounds and failures of the queue before an engine."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from penstock.errors import Unavailable
from penstock.models.base import Lane, TokenIds, Vectors
from penstock.models.batcher import Batcher
from penstock.models.metrics import ModelMetrics
from penstock.models.options import BatcherOptions

Open: TypeAlias = Callable[..., AbstractAsyncContextManager[Batcher]]

LONG_SLICES = BatcherOptions(slice_ms=1e6, batch_tokens=256)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def opened(engine: Any, registry: CollectorRegistry) -> Open:
    @asynccontextmanager
    async def opened(options: BatcherOptions = LONG_SLICES) -> AsyncIterator[Batcher]:
        metrics = ModelMetrics(registry)
        async with Batcher(engine, name="m", longest=64, options=options, metrics=metrics) as batcher:
            try:
                yield batcher
            finally:
                engine.gate.set()

    return opened


def tokens(first: int, length: int = 8) -> TokenIds:
    return np.array([first] + [1] * (length - 1), np.int32)


async def run(batcher: Batcher, texts: list[TokenIds], lane: Lane = Lane.BULK) -> Vectors:
    call = await batcher.put(texts, lane)
    try:
        await call.done
    finally:
        batcher.forget(call)
    return call.result


async def test_every_row_comes_back_in_its_place(opened: Open) -> None:
    rng = random.Random(1)
    lengths = [[rng.randint(2, 64) for _ in range(rng.randint(1, 30))] for _ in range(40)]
    async with opened() as batcher:
        results = await asyncio.gather(
            *(
                run(
                    batcher,
                    [tokens(number * 100 + row, length) for row, length in enumerate(call)],
                    rng.choice([*Lane]),
                )
                for number, call in enumerate(lengths)
            )
        )
    for number, (call, result) in enumerate(zip(lengths, results, strict=True)):
        assert result.tolist() == [[number * 100 + row, length] for row, length in enumerate(call)]


async def test_batches_keep_to_the_token_budget_and_mix_callers(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    async with opened() as batcher:
        first = asyncio.create_task(run(batcher, [tokens(1)]))
        await engine.wait_running()
        others = [asyncio.create_task(run(batcher, [tokens(n, length)])) for n, length in enumerate([60, 8, 60, 8, 8])]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert all(np.prod(shape) <= 256 for shape in engine.shapes)
    # Texts of like length from different callers share a batch: little padding.
    assert sorted(engine.shapes[1:]) == [(2, 64), (3, 16)]


async def test_a_question_goes_before_bulk_work_that_waits(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    async with opened() as batcher:
        bulk = asyncio.create_task(run(batcher, [tokens(1, 60)] * 40))
        await engine.wait_running()
        question = asyncio.create_task(run(batcher, [tokens(7, 9)], Lane.INTERACTIVE))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(bulk, question)
    assert engine.batches[1][0, 0] == 7


async def test_bulk_work_is_not_starved_by_questions(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    one_row = BatcherOptions(batch_tokens=1)
    async with opened(one_row) as batcher:
        first = asyncio.create_task(run(batcher, [tokens(1)], Lane.INTERACTIVE))
        await engine.wait_running()
        calls = [asyncio.create_task(run(batcher, [tokens(7)], Lane.INTERACTIVE)) for _ in range(40)]
        bulk = asyncio.create_task(run(batcher, [tokens(2)]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, bulk, *calls)
    order = [int(batch[0, 0]) for batch in engine.batches]
    assert order.index(2) <= 10


async def test_slices_are_as_short_as_the_cost_says(opened: Open, engine: Any) -> None:
    async with opened(BatcherOptions(slice_ms=5.0)) as batcher:
        await run(batcher, [tokens(1, 60) for _ in range(30)])
    rows = [shape[0] for shape in engine.shapes]
    assert rows[0] == 1  # 64 tokens are guessed to take more than 5 ms
    assert max(rows) > 1  # and are found out to take none


@pytest.mark.case(26)
async def test_a_cancelled_caller_leaves_the_queue_at_once(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    async with opened() as batcher:
        first = asyncio.create_task(run(batcher, [tokens(1)]))
        await engine.wait_running()
        gone = asyncio.create_task(run(batcher, [tokens(66, 60)] * 50))
        stays = asyncio.create_task(run(batcher, [tokens(3)]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        engine.gate.set()
        await asyncio.gather(first, stays)
    assert [batch[0, 0] for batch in engine.batches] == [1, 3]


async def test_callers_wait_while_the_lane_is_full(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    async with opened(BatcherOptions(batch_tokens=64, queue_tokens=100)) as batcher:
        calls = [await batcher.put([tokens(1, 50)], Lane.BULK)]
        await engine.wait_running()
        calls += [await batcher.put([tokens(1, 50)], Lane.BULK) for _ in range(2)]
        late = asyncio.create_task(batcher.put([tokens(2, 50)], Lane.BULK))
        done, _ = await asyncio.wait([late], timeout=0.05)
        assert not done
        question = await batcher.put([tokens(3)], Lane.INTERACTIVE)  # a lane of its own
        engine.gate.set()
        await asyncio.gather(question.done, *(call.done for call in calls))
        await (await late).done


async def test_a_failed_batch_fails_its_callers_only(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    engine.errors = [Unavailable("broken for once")]
    async with opened() as batcher:
        bad = asyncio.create_task(run(batcher, [tokens(1)]))
        await engine.wait_running()
        good = asyncio.create_task(run(batcher, [tokens(2)]))
        await asyncio.sleep(0)
        engine.gate.set()
        assert (await good).tolist() == [[2, 8]]
        with pytest.raises(Unavailable, match="broken for once"):
            await bad


async def test_a_bug_in_the_engine_hangs_nobody(opened: Open, engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine.errors = [ZeroDivisionError("a bug")]
    async with opened() as batcher:
        with pytest.raises(Unavailable):
            await run(batcher, [tokens(1)])
        assert batcher.closed
        with pytest.raises(Unavailable):
            await run(batcher, [tokens(2)])
    assert "broke down" in caplog.text
    assert engine.closed


async def test_closing_tells_those_who_wait(opened: Open, engine: Any) -> None:
    engine.gate.clear()
    async with opened(BatcherOptions(batch_tokens=64, queue_tokens=60)) as batcher:
        running = asyncio.create_task(run(batcher, [tokens(1)]))
        await engine.wait_running()
        waiting = asyncio.create_task(run(batcher, [tokens(2, 60)]))
        no_room = asyncio.create_task(run(batcher, [tokens(3, 60)]))
        await asyncio.sleep(0.01)
    assert (await running).tolist() == [[1, 8]]
    for task in (waiting, no_room):
        with pytest.raises(Unavailable, match="unloaded"):
            await task
    assert engine.closed


async def test_random_cancellation_leaks_nothing(opened: Open, engine: Any) -> None:
    rng = random.Random(4)

    async def request(batcher: Batcher, number: int) -> None:
        texts = [tokens(number, rng.randint(1, 64)) for _ in range(rng.randint(1, 5))]
        result = await run(batcher, texts, rng.choice([*Lane]))
        assert set(result[:, 0]) == {number}

    async with opened() as batcher:
        tasks = [asyncio.create_task(request(batcher, number)) for number in range(1000)]
        while not all(task.done() for task in tasks):
            rng.choice(tasks).cancel()
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {type(None), asyncio.CancelledError}
        assert not batcher._calls
        assert all(waiting.tokens == 0 for waiting in batcher._lanes.values())


async def test_padding_is_the_models_own_token_and_masked(engine: Any, registry: CollectorRegistry) -> None:
    metrics = ModelMetrics(registry)
    async with Batcher(engine, name="m", longest=64, pad_id=9, options=LONG_SLICES, metrics=metrics) as batcher:
        assert (await run(batcher, [tokens(5, 3)])).tolist() == [[5, 3]]
    assert engine.batches[0].tolist() == [[5, 1, 1, *[9] * 13]]


async def test_metrics_count_tokens_and_padding(opened: Open, registry: CollectorRegistry) -> None:
    async with opened() as batcher:
        await run(batcher, [tokens(1, 60)])
    labels = {"model": "m", "lane": "bulk"}
    assert registry.get_sample_value("penstock_model_tokens_total", labels) == 60
    assert registry.get_sample_value("penstock_model_padding_tokens_total", labels) == 4
    assert registry.get_sample_value("penstock_model_wait_seconds_count", labels) == 1


async def test_metrics_tell_fill_rows_waits_and_runs(opened: Open, engine: Any, registry: CollectorRegistry) -> None:
    engine.gate.clear()
    async with opened(BatcherOptions(slice_ms=1e6, batch_tokens=128)) as batcher:
        first = asyncio.create_task(run(batcher, [tokens(1, 64)]))
        await engine.wait_running()
        others = [asyncio.create_task(run(batcher, [tokens(1, length)])) for length in (60, 64)]
        question = asyncio.create_task(run(batcher, [tokens(1, 16)], Lane.INTERACTIVE))
        await asyncio.sleep(0.02)
        engine.gate.set()
        await asyncio.gather(first, question, *others)

    def value(name: str, lane: str) -> float | None:
        return registry.get_sample_value(f"penstock_model_{name}", {"model": "m", "lane": lane})

    assert value("batches_total", "bulk") == value("run_seconds_count", "bulk") == 2
    assert value("rows_total", "bulk") == 3
    assert value("tokens_total", "bulk") == 188
    assert value("padding_tokens_total", "bulk") == 4
    assert value("batch_fill_ratio_sum", "bulk") == pytest.approx(64 / 128 + 124 / 128)
    assert value("wait_seconds_count", "bulk") == 3
    assert value("wait_seconds_count", "interactive") == value("batches_total", "interactive") == 1
    assert (value("wait_seconds_sum", "interactive") or 0) >= 0.02
    assert (value("run_seconds_sum", "bulk") or 0) >= 0.02
    assert value("queued_tokens", "bulk") == 0
