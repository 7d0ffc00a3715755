"""One thread that writes for a whole process: what is waiting is committed together, in one transaction."""

import asyncio
import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from penstock.errors import PenstockError, Unavailable

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item

_GROUP = 256
"""Operations a transaction at most, so that another process that wants to write waits for some tens of ms only."""


class _Operation:
    """A function on its way through the thread, and what came of it.

    With an `item`, the function takes a list of items, so that one call does for all that come together.
    """

    def __init__(self, function: Callable[..., Any], future: asyncio.Future[Any], item: Any = None) -> None:
        self.function = function
        self.future = future
        self.item = item
        self.result: Any = None
        self.error: BaseException | None = None

    def take(self, result: Any) -> None:
        self.result, self.error = (None, result) if isinstance(result, Exception) else (result, None)

    def deliver(self) -> None:
        if self.future.done():  # its caller was cancelled meanwhile
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class GroupWriter:
    """Runs functions one after the other on one connection of `engine`, many a commit, each undone alone if it raises.

    `translate` makes our error of a database's. The queue holds no more than there are callers: each waits for its own.
    """

    def __init__(self, engine: Engine, translate: Callable[[DBAPIError], PenstockError]) -> None:
        self._engine = engine
        self._translate = translate
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._closed = False

    def start(self, executor: ThreadPoolExecutor) -> None:
        """Takes one thread of the executor until it is closed."""
        self._loop = asyncio.get_running_loop()
        self._thread = self._loop.run_in_executor(executor, self._work)

    async def run(self, function: Callable[[Connection], T]) -> T:
        """Returns when its transaction is committed. If the caller is cancelled meanwhile, it may be or not."""
        if self._closed:
            raise Unavailable("The ledger is closed: the process is about to end.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Operation(function, future))
        return await future

    async def run_each(self, function: Callable[[Connection, Sequence[I]], Sequence[T | Exception]], item: I) -> T:
        """As `run`, for a function that does many items at once and says of each what came of it, errors too.

        Where it raises instead, it is called again with each item alone.
        """
        if self._closed:
            raise Unavailable("The ledger is closed: the process is about to end.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Operation(function, future, item))
        return await future

    async def close(self) -> None:
        """Ends once all that was asked for is written."""
        self._closed = True
        self._queue.put(None)
        await self._thread

    def _work(self) -> None:
        with self._engine.connect() as conn:
            last = False
            while not last:
                group, last = self._next_group()
                self._commit(conn, group)
                self._loop.call_soon_threadsafe(_deliver, group)

    def _next_group(self) -> tuple[list[_Operation], bool]:
        """Waits for one operation, then takes all that are there; and whether they are the last."""
        group: list[_Operation] = []
        while len(group) < _GROUP:
            try:
                operation = self._queue.get(block=not group)
            except queue.Empty:
                break
            if operation is None:
                return group, True
            group.append(operation)
        return group, False

    def _commit(self, conn: Connection, group: Sequence[_Operation]) -> None:
        try:
            with conn.begin():
                for operations in _together(group):
                    self._run(conn, operations, alone=len(operations) == len(group))
        except DBAPIError as exc:
            error = self._translated(exc)
            if len(group) == 1 or type(error) is Unavailable:
                _fail(group, error)
            else:
                for operation in group:  # which of them it was is found out one by one
                    self._commit(conn, [operation])
        except Exception as exc:
            _fail(group, exc)

    def _run(self, conn: Connection, operations: Sequence[_Operation], *, alone: bool) -> None:
        """Operations of one function; `alone` when there are no others in the transaction that must be kept."""
        if alone and len(operations) == 1:
            _call(conn, operations)
            return
        try:
            with conn.begin_nested():
                _call(conn, operations)
        except IntegrityError as exc:
            self._run_apart(conn, operations, self._translated(exc))
        except DBAPIError:
            raise  # a full disk, say: the engine may have undone the whole transaction
        except Exception as exc:
            self._run_apart(conn, operations, exc)

    def _run_apart(self, conn: Connection, operations: Sequence[_Operation], error: Exception) -> None:
        """Finds out which of them it was."""
        if len(operations) == 1:
            operations[0].error = error
            return
        for operation in operations:
            self._run(conn, [operation], alone=False)

    def _translated(self, exc: DBAPIError) -> PenstockError:
        error = self._translate(exc)
        error.__cause__ = exc
        return error


def _together(group: Sequence[_Operation]) -> Iterable[Sequence[_Operation]]:
    """Those that one call can do, else one by one; the order of operations that wait at the same time is nobody's."""
    bulk: dict[Callable[..., Any], list[_Operation]] = {}
    for operation in group:
        if operation.item is None:
            yield [operation]
        else:
            bulk.setdefault(operation.function, []).append(operation)
    yield from bulk.values()


def _call(conn: Connection, operations: Sequence[_Operation]) -> None:
    first = operations[0]
    if first.item is None:
        first.take(first.function(conn))
        return
    for operation, result in zip(operations, first.function(conn, [one.item for one in operations]), strict=True):
        operation.take(result)


def _fail(group: Sequence[_Operation], error: Exception) -> None:
    for operation in group:
        operation.error = error


def _deliver(group: Sequence[_Operation]) -> None:
    for operation in group:
        operation.deliver()
