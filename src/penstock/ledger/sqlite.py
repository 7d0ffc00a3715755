"""The ledger's SQLite database: a file that several processes share, or one in memory that ends with its process.

Durable: write-ahead log with `synchronous=FULL`. One writer thread a process; readers have snapshots of their own.
"""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from penstock.errors import DataError, PenstockError, Unavailable
from penstock.ledger.database import Database
from penstock.ledger.migrations import STEPS, Step, migrate
from penstock.ledger.sqlite_errors import translate
from penstock.ledger.writer import GroupWriter

T = TypeVar("T")

_READERS = 4
_BUSY_TIMEOUT_S = 5.0
_CHECKED_BYTES = 256 * 1024 * 1024
"""A file up to this size is checked for damage at start (about a second); of a larger one damage is told when met."""


class SqliteDatabase(Database):
    """`path` None: in memory, and then everything runs on the writer's thread. `steps` are the schema's migrations."""

    def __init__(self, path: Path | None, *, steps: Sequence[Step] = STEPS) -> None:
        self._path = path
        self._name = "The ledger in memory" if path is None else f"The ledger {path}"
        self._steps = steps
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-read")
        self._write_engine = _engine(path, "BEGIN IMMEDIATE")
        self._read_engine = None if path is None else _engine(path, "BEGIN", "query_only = ON")
        self._writer = GroupWriter(self._write_engine, self._translate)

    async def open(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._prepare)
        self._writer.start(self._executor)

    async def close(self) -> None:
        await self._writer.close()
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._executor.shutdown(wait=True)
        for engine in (self._read_engine, self._write_engine):
            if engine is not None:
                engine.dispose()

    async def _read(self, call: Callable[[Connection], T]) -> T:
        if self._read_engine is None:
            return await self._writer.run(call)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, _call, self._read_engine, call)
        except (DBAPIError, sqlite3.Error) as exc:
            raise self._translate(exc) from exc

    async def _write(self, call: Callable[[Connection], T]) -> T:
        return await self._writer.run(call)

    def _translate(self, exc: DBAPIError | sqlite3.Error) -> PenstockError:
        return translate(exc.orig if isinstance(exc, DBAPIError) else exc, self._name)

    def _prepare(self) -> None:
        try:
            if self._path is not None:
                _ensure_file(self._path, self._name, self._steps)
                _check_file(self._path, self._name)
            with self._write_engine.begin() as conn:
                migrate(conn, self._name, self._steps)
        except (DBAPIError, sqlite3.Error) as exc:
            error = self._translate(exc)
            # At start nobody waits for a better moment: whatever it is, somebody has to look at the file.
            raise DataError(error.message) if isinstance(error, Unavailable) else error from exc
        except OSError as exc:
            raise DataError(f"{self._name} cannot be opened: {exc}. Check the folder and its permissions.") from exc


def _engine(path: Path | None, begin: str, *pragmas: str) -> Engine:
    """An engine whose transactions start with `begin`, with the settings of every connection of ours."""
    if path is None:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(
            f"sqlite:///{path}",
            pool_size=_READERS,
            max_overflow=0,
            connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S},
        )

    def connected(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # the driver leaves BEGIN to us
        with closing(connection.cursor()) as cursor:
            for pragma in ("foreign_keys = ON", "synchronous = FULL", "cache_size = -16384", *pragmas):
                cursor.execute(f"PRAGMA {pragma}")

    def begun(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _call(engine: Engine, call: Callable[[Connection], T]) -> T:
    with engine.connect() as conn:
        return call(conn)


def _ensure_file(path: Path, name: str, steps: Sequence[Step]) -> None:
    """A file that is not there is made aside and put in place whole, so an empty one is a truncated one."""
    if not path.exists():
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            raise DataError(f"{name} is missing, but its log {log.name} is there: restore both from a backup.")
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path, name, steps)
    if not path.is_file():
        raise DataError(f"{name} is not a file.")
    if path.stat().st_size == 0:
        raise DataError(f"{name} is empty: it was truncated. Restore it from a backup, or delete it to start anew.")


def _create(path: Path, name: str, steps: Sequence[Step]) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    engine = _engine(aside, "BEGIN IMMEDIATE")
    try:
        with engine.begin() as conn:
            migrate(conn, name, steps)
        engine.dispose()
        os.link(aside, path)  # unlike a rename, never over a file that another process put there meanwhile
    except FileExistsError:
        pass
    finally:
        engine.dispose()
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_file(path: Path, name: str) -> None:
    """Sees to the write-ahead log, and looks for damage."""
    with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise DataError(f"{name} is on a file system that cannot share memory: move it to a local disk.")
        if path.stat().st_size <= _CHECKED_BYTES:
            (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if first != "ok":
                raise DataError(f"{name} is damaged ({first}): restore it from a backup.")
