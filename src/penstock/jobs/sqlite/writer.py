"""The one thread of a process that writes: it takes all that is waiting, does it in one transaction, commits once."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

from penstock.errors import Unavailable
from penstock.jobs.sqlite.schema import explain

T = TypeVar("T")
logger = logging.getLogger(__name__)

_MAX_WAITING = 20_000
_MAX_GROUP = 512
_LOCK_TIMEOUT_S = 10.0
_LOCK_RETRY_S = 0.00025


class _Operation(Generic[T]):
    """One piece of work and who waits for it: an event loop's future or, without a loop, a thread's."""

    __slots__ = ("durable", "error", "future", "loop", "result", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], T], durable: bool, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self.work = work
        self.durable = durable
        self.loop = loop
        self.future: Any = loop.create_future() if loop else Future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():  # its caller was cancelled meanwhile
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Group commit. An operation that fails is undone alone (by its savepoint); a commit that fails undoes its group.

    Only a group with a durable operation in it waits for the disk. The others (leases, heartbeats, progress) are
    safe against the death of a process, and after the death of the machine nobody is left who could rely on them.
    The write-ahead log keeps their order, so a later durable commit makes them durable too.
    """

    def __init__(self, cx: sqlite3.Connection, path: str, committed: Callable[[], None], *, sync: bool) -> None:
        self._cx = cx
        self._path = path
        self._committed = committed
        self._waiting: deque[_Operation[Any]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._sync = sync
        self._synchronous: bool | None = None
        self._cx.execute("PRAGMA synchronous = OFF")
        self._cx.execute("PRAGMA busy_timeout = 0")
        self._thread = threading.Thread(target=self._run, name="jobs-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Do the work in the next group; returns after its commit. A cancelled caller's work may still be done."""
        operation = _Operation(work, durable, asyncio.get_running_loop())
        self._submit(operation)
        done: T = await operation.future
        return done

    def run_blocking(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The same from a thread without an event loop, never waiting for the disk."""
        operation = _Operation(work, False, None)
        self._submit(operation)
        done: T = operation.future.result()
        return done

    def close(self) -> None:
        """Do what is waiting, then stop and close the connection."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._cx.close()

    def _submit(self, operation: _Operation[Any]) -> None:
        with self._wake:
            if self._closing:
                raise Unavailable("the job store is closed")
            if len(self._waiting) >= _MAX_WAITING:
                raise Unavailable("the job store cannot write as fast as it is asked to; try again")
            self._waiting.append(operation)
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_GROUP))]
            if not group:
                return
            try:
                self._commit(group)
            except sqlite3.Error as exc:
                self._fail(group, explain(exc, self._path))
            except Exception as exc:
                logger.exception("a group of writes to the jobs file failed")
                self._fail(group, exc)
            self._answer(group)

    def _commit(self, group: list[_Operation[Any]]) -> None:
        if self._sync:
            self._set_synchronous(any(operation.durable for operation in group))
        self._begin()
        for operation in group:
            self._cx.execute("SAVEPOINT one")
            try:
                operation.result = operation.work(self._cx)
            except Exception as exc:  # (whatever it is, it belongs to the caller)
                if not self._cx.in_transaction:  # the disk is full or failing: SQLite has undone the whole group
                    raise
                operation.error = explain(exc, self._path) if isinstance(exc, sqlite3.Error) else exc
                self._cx.execute("ROLLBACK TO one")
            self._cx.execute("RELEASE one")
        self._cx.execute("COMMIT")
        self._committed()

    def _set_synchronous(self, full: bool) -> None:
        if full != self._synchronous:
            self._cx.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._synchronous = full

    def _begin(self) -> None:
        """SQLite's own waiting for another process backs off to 100 ms; a commit takes less than one."""
        until = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                self._cx.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(_LOCK_RETRY_S)
            else:
                return

    def _fail(self, group: list[_Operation[Any]], error: Exception) -> None:
        if self._cx.in_transaction:
            self._cx.execute("ROLLBACK")
        for operation in group:
            operation.error = error

    def _answer(self, group: list[_Operation[Any]]) -> None:
        """Wake each event loop once for all of its operations."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Operation[Any]]] = {}
        for operation in group:
            if operation.loop is None:
                operation.resolve()
            else:
                by_loop.setdefault(operation.loop, []).append(operation)
        for loop, operations in by_loop.items():
            try:
                loop.call_soon_threadsafe(partial(_resolve_all, operations))
            except RuntimeError:  # that loop is closed: nobody waits any more
                continue


def _resolve_all(operations: list[_Operation[Any]]) -> None:
    for operation in operations:
        operation.resolve()
