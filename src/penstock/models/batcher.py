"""Where the texts of all jobs of the process meet: one queue a model, one thread for each stream of its engine.

Work-conserving: a free stream takes what waits, no timer holds it back. While a batch runs the next one is chosen and
padded, and the results of the last one are handed out.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np

from penstock.errors import OutOfMemory, PenstockError, Unavailable
from penstock.models.base import Encoder, Item, Lane, Pending, TokenIds, Vectors
from penstock.models.cost import CostModel
from penstock.models.lane import Call, Row, WaitingRows
from penstock.models.memory import TokenBudget
from penstock.models.metrics import ModelMetrics
from penstock.models.options import BatcherOptions
from penstock.models.shapes import padded_length

logger = logging.getLogger(__name__)

PATIENCE = 8
"""Interactive batches in a row after which one bulk batch gets its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows padded to one shape, ready for the engine."""

    lane: Lane
    rows: Sequence[Row]
    data: Item
    mask: TokenIds
    length: int

    @property
    def tokens(self) -> int:
        """Padding included."""
        return len(self.rows) * self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A batch inside the engine, and since when."""

    batch: Batch
    pending: Pending
    since: float


class Batcher:
    """The queue and the thread of one engine. An async context manager; used from one event loop.

    Guarantees: rows of a call come back in order; a call whose caller is gone leaves the queue at once; callers wait
    while their lane is full; when the engine fails on a batch, the calls in it fail and the others go on.

    When a batch does not fit the device's memory, nobody fails: its rows go back to the front of the queue and come
    again in batches of half the size. A row that does not even fit alone runs on the engine that `spare` makes, once
    it is needed; only where there is none its call fails. It is called on the batcher's thread and may block.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        name: str,
        longest: int,
        pad_id: int = 0,
        options: BatcherOptions,
        metrics: ModelMetrics,
        cost: CostModel | None = None,
        spare: Callable[[], Encoder] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder = encoder
        self._name = name
        self._longest = longest
        self._pad_id = pad_id
        self._options = options
        self._metrics = metrics
        self._cost = cost or CostModel()
        self._budget = TokenBudget(options.batch_tokens, room=encoder.room_tokens, clock=clock)
        self._make_spare = spare
        self._spare: Encoder | None = None
        self._lanes = MappingProxyType({lane: WaitingRows(longest=longest) for lane in Lane})
        self._room = MappingProxyType({lane: asyncio.Event() for lane in Lane})
        self._calls: set[Call] = set()
        self._in_a_row = 0
        self._closed = False
        self._wake = threading.Condition()
        self._stopped = asyncio.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"model {name} {stream}", daemon=True)
            for stream in range(encoder.streams)
        ]
        self._at_work = len(self._threads)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop after the running batches. Calls that wait fail with Unavailable."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        await self._stopped.wait()
        for thread in self._threads:
            thread.join()
        for engine in (self._encoder, self._spare):
            if engine is not None:
                engine.close()

    @property
    def closed(self) -> bool:
        """Whether it was stopped, or a thread of its broke down; nothing runs here any more."""
        return self._closed

    async def put(self, items: Sequence[Item], lane: Lane) -> Call:
        """Queue tokenised texts or images as one call; returns once they have room. Raises Unavailable when closed."""
        waiting = self._lanes[lane]
        while waiting.tokens >= self._options.queue_tokens and not self._closed:
            self._room[lane].clear()
            await self._room[lane].wait()
        result = np.empty((len(items), self._encoder.dimensions), np.float32)
        call = Call(lane=lane, result=result, left=len(items), done=self._loop.create_future())
        now, tokens_of = time.monotonic(), self._encoder.tokens_of
        with self._wake:
            if self._closed:
                raise Unavailable(f"The model {self._name} was unloaded.")
            waiting.push(
                Row(item=item, tokens=tokens_of(item), call=call, place=place, queued_at=now)
                for place, item in enumerate(items)
            )
            self._wake.notify(len(items))
        self._calls.add(call)
        return call

    def forget(self, call: Call) -> None:
        """Take out a call that nobody waits for any more. Harmless for one that is over."""
        self._calls.discard(call)
        if call.done.done() and not call.done.cancelled():
            call.done.exception()  # seen: asyncio need not warn of it
            return
        with self._wake:
            self._lanes[call.lane].drop(call)
        call.done.cancel()
        self._metrics.cancelled.labels(self._name, call.lane).inc()
        self._tell_room(call.lane)

    # --- the engine's threads ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._drive()
        except Exception:
            logger.exception("the thread of the model %s broke down", self._name)
        finally:
            with self._wake:
                self._closed = True
                self._wake.notify_all()
                self._at_work -= 1
                last = not self._at_work
            if last:
                self._on_loop(self._end)

    def _drive(self) -> None:
        running: Running | None = None
        held: Batch | None = None
        while True:
            batch = held or self._next(wait=running is None)
            held = None
            if batch is None and running is None:
                return
            outcome = self._wait(running) if running else None
            urgent = self._urgent(batch) if running else None
            if urgent is not None:
                batch, held = urgent, batch
            started = self._start(batch) if batch else None
            if running is not None and outcome is not None:
                self._hand_out(running, outcome)
            running = started

    def _next(self, *, wait: bool) -> Batch | None:
        """The batch to run next; None when nothing waits, or when it is time to stop."""
        with self._wake:
            while wait and not self._closed and not any(len(lane) for lane in self._lanes.values()):
                self._wake.wait()
            if self._closed:
                return None
            self._budget.refresh()
            lane = self._turn()
            rows = self._lanes[lane].take(self)
        return self._pad(lane, rows) if rows else None

    def _turn(self) -> Lane:
        """Interactive first, but for one bulk batch after a long row of them."""
        urgent, bulk = (len(self._lanes[lane]) > 0 for lane in (Lane.INTERACTIVE, Lane.BULK))
        return Lane.INTERACTIVE if urgent and not (bulk and self._in_a_row >= PATIENCE) else Lane.BULK

    def _urgent(self, prepared: Batch | None) -> Batch | None:
        """A question that came while the batch before ran goes ahead of the bulk batch that was prepared."""
        if prepared is None or prepared.lane is Lane.INTERACTIVE or self._in_a_row >= PATIENCE:
            return None
        with self._wake:
            rows = self._lanes[Lane.INTERACTIVE].take(self)
        return self._pad(Lane.INTERACTIVE, rows) if rows else None

    def fits(self, rows: int, length: int) -> bool:
        short = self._cost.predict_ms(rows, length) <= self._options.slice_ms
        return short and rows * length <= self._budget.tokens

    def saves(self, batch: tuple[int, int], row: int) -> bool:
        rows, length = batch
        together = self._cost.predict_ms(rows + 1, max(length, row))
        return together <= self._cost.predict_ms(rows, length) + self._cost.predict_ms(1, row)

    def _pad(self, lane: Lane, rows: Sequence[Row]) -> Batch:
        length = padded_length(max(row.tokens for row in rows), longest=self._longest)
        data, mask = self._encoder.collate([row.item for row in rows], length, self._pad_id)
        return Batch(lane=lane, rows=rows, data=data, mask=mask, length=length)

    def _start(self, batch: Batch) -> Running | None:
        self._in_a_row = self._in_a_row + 1 if batch.lane is Lane.INTERACTIVE else 0
        if self._budget.refuses(batch.tokens) and (len(batch.rows) > 1 or self._make_spare is not None):
            self._make_smaller(batch, OutOfMemory("The device's memory does not hold the batch."))
            return None
        now = time.monotonic()
        try:
            return Running(batch=batch, pending=self._encoder.start(batch.data, batch.mask), since=now)
        except OutOfMemory as error:
            told = error
        except PenstockError as error:
            self._fail(batch, error)
            return None
        self._step_down(batch, told)
        return None

    def _wait(self, running: Running) -> Vectors | PenstockError:
        try:
            vectors = running.pending()
        except PenstockError as error:
            return error
        took_s = time.monotonic() - running.since
        with self._wake:
            self._cost.observe(len(running.batch.rows), running.batch.length, took_s * 1e3)
        self._metrics.ran(self._name, running.batch.lane, took_s)
        return vectors

    def _hand_out(self, running: Running, outcome: Vectors | PenstockError) -> None:
        batch = running.batch
        if isinstance(outcome, OutOfMemory):
            self._step_down(batch, outcome)
        elif isinstance(outcome, PenstockError):
            self._fail(batch, outcome)
        else:
            self._deliver(batch, outcome, running.since)

    def _deliver(self, batch: Batch, vectors: Vectors, since: float) -> None:
        done = []
        for row, vector in zip(batch.rows, vectors, strict=True):
            row.call.result[row.place] = vector
        with self._wake:
            for row in batch.rows:
                row.call.left -= 1
                if not row.call.left:
                    done.append(row.call)
        self._on_loop(self._finish, batch.lane, done)
        self._count(batch, since)

    def _count(self, batch: Batch, started: float) -> None:
        self._metrics.counted(
            self._name,
            batch.lane,
            waits_s=[started - row.queued_at for row in batch.rows],
            tokens=sum(row.tokens for row in batch.rows),
            padded=batch.tokens,
            limit=self._budget.tokens,
        )

    def _step_down(self, batch: Batch, error: OutOfMemory) -> None:
        """The batch did not fit: remember that, and try again with less."""
        self._encoder.relieve()
        before = self._budget.tokens
        self._budget.failed(batch.tokens)
        self._metrics.ran_out(self._name, self._budget.tokens)
        logger.log(
            logging.WARNING if self._budget.tokens < before else logging.DEBUG,
            "%d texts of %d tokens did not fit the memory that %s runs in; at most %d tokens a batch from here on: %s",
            len(batch.rows), batch.length, self._name, self._budget.tokens, error,
        )  # fmt: skip
        self._make_smaller(batch, error)

    def _make_smaller(self, batch: Batch, error: OutOfMemory) -> None:
        if len(batch.rows) == 1:
            self._run_aside(batch, error)
            return
        with self._wake:
            self._lanes[batch.lane].give_back(batch.rows)

    def _run_aside(self, batch: Batch, error: OutOfMemory) -> None:
        """Run a batch on the spare engine, at once and to its end."""
        if self._make_spare is None:
            self._fail(batch, error)
            return
        since = time.monotonic()
        try:
            self._spare = self._spare or self._make_spare()
            vectors = self._spare.start(batch.data, batch.mask)()
        except PenstockError as failure:
            self._fail(batch, failure)
            return
        self._metrics.ran(self._name, batch.lane, time.monotonic() - since)
        self._metrics.spared.labels(self._name).inc(len(batch.rows))
        self._deliver(batch, vectors, since)

    def _fail(self, batch: Batch, error: PenstockError) -> None:
        logger.error("a batch of %d texts failed on %s: %s", len(batch.rows), self._name, error)
        self._metrics.failures.labels(self._name).inc()
        calls = {row.call for row in batch.rows}
        with self._wake:
            for call in calls:
                self._lanes[batch.lane].drop(call)
        self._on_loop(self._break, batch.lane, calls, error)

    def _on_loop(self, work: Callable[..., None], *args: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work, *args)

    # --- back on the event loop -------------------------------------------------------------------------------------

    def _finish(self, lane: Lane, calls: Iterable[Call]) -> None:
        for call in calls:
            self._calls.discard(call)
            if not call.done.done():
                call.done.set_result(None)
        self._tell_room(lane)

    def _break(self, lane: Lane, calls: Iterable[Call], error: PenstockError) -> None:
        for call in calls:
            self._calls.discard(call)
            if not call.done.done():
                call.done.set_exception(error)
        self._tell_room(lane)

    def _tell_room(self, lane: Lane) -> None:
        if self._closed or self._lanes[lane].tokens < self._options.queue_tokens:
            self._room[lane].set()
        self._metrics.queued.labels(self._name, lane).set(self._lanes[lane].tokens)

    def _end(self) -> None:
        """The thread is done: whoever still waits is told so."""
        for lane in Lane:
            mine = [call for call in self._calls if call.lane is lane]
            self._break(lane, mine, Unavailable(f"The model {self._name} was unloaded."))
        self._stopped.set()
