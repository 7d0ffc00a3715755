"""The ledger's SQLite database: a file that several processes share, or one in memory that ends with its process.

Durable: write-ahead log with `synchronous=FULL`. One writer thread a process; readers have snapshots of their own.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from penstock.errors import DataError, PenstockError, Unavailable
from penstock.ledger.database import Database
from penstock.ledger.migrations import STEPS, Step, migrate
from penstock.ledger.sqlite_errors import translate
from penstock.ledger.sqlite_file import BUSY_TIMEOUT_S, check, engine_in_memory, engine_on, ensure
from penstock.ledger.turnstile import Turnstile
from penstock.ledger.writer import GroupWriter

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item

_READERS = 4


class _SqliteDatabase(Database):
    """What both have: a thread that writes. `steps` are the schema's migrations."""

    def __init__(self, name: str, engine: Engine, steps: Sequence[Step]) -> None:
        self._name = name
        self._engine = engine
        self._steps = steps
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger-write")
        self._writer = GroupWriter(engine, self._translate)

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._prepare)
        except BaseException:
            self._dispose()
            raise
        self._writer.start(self._executor)

    async def close(self) -> None:
        await self._writer.close()
        self._dispose()

    def _dispose(self) -> None:
        self._executor.shutdown(wait=True)
        self._engine.dispose()

    def _prepare(self) -> None:
        with self._engine.begin() as conn:
            migrate(conn, self._name, self._steps)

    async def _write(self, call: Callable[[Connection], T]) -> T:
        return await self._writer.run(call)

    async def _write_each(self, function: Callable[[Connection, Sequence[I]], Sequence[T | Exception]], item: I) -> T:
        return await self._writer.run_each(function, item)

    def _translate(self, exc: DBAPIError | sqlite3.Error) -> PenstockError:
        return translate(exc.orig if isinstance(exc, DBAPIError) else exc, self._name)


class MemoryDatabase(_SqliteDatabase):
    """One connection, so reads wait in line with the writes."""

    def __init__(self, *, steps: Sequence[Step] = STEPS) -> None:
        super().__init__("The ledger in memory", engine_in_memory(), steps)

    async def _read(self, call: Callable[[Connection], T]) -> T:
        return await self._writer.run(call)


class FileDatabase(_SqliteDatabase):
    def __init__(self, path: Path, *, steps: Sequence[Step] = STEPS) -> None:
        self._path = path
        self._turnstile = Turnstile(path.with_name(f"{path.name}-turn"), BUSY_TIMEOUT_S)
        writing = engine_on(path, self._turnstile.begin, "busy_timeout = 0")
        super().__init__(f"The ledger {path}", writing, steps)
        self._reading = engine_on(path, _begin_reading, "query_only = ON", connections=_READERS)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-read")

    def _dispose(self) -> None:
        self._readers.shutdown(wait=True)
        self._reading.dispose()
        super()._dispose()
        self._turnstile.close()

    def _prepare(self) -> None:
        try:
            ensure(self._path, self._name, self._steps)
            check(self._path, self._name)
            super()._prepare()
        except (DBAPIError, sqlite3.Error) as exc:
            error = self._translate(exc)
            # At start nobody waits for a better moment: whatever it is, somebody has to look at the file.
            raise DataError(error.message) if isinstance(error, Unavailable) else error from exc
        except OSError as exc:
            raise DataError(f"{self._name} cannot be opened: {exc}. Check the folder and its permissions.") from exc

    async def _read(self, call: Callable[[Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, _call, self._reading, call)
        except (DBAPIError, sqlite3.Error) as exc:
            raise self._translate(exc) from exc
        except RuntimeError as exc:
            raise Unavailable("The ledger is closed: the process is about to end.") from exc


def _begin_reading(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN")


def _call(engine: Engine, call: Callable[[Connection], T]) -> T:
    with engine.connect() as conn:
        return call(conn)
