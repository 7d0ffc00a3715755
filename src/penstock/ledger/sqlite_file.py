"""SQLite's engines and files: how they are opened, made and looked over before anybody relies on them."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from penstock.errors import DataError
from penstock.ledger.migrations import Step, migrate
from penstock.ledger.schema import ledger_schema

BUSY_TIMEOUT_S = 5.0
_CHECKED_BYTES = 256 * 1024 * 1024
"""A file up to this size is checked for damage at start (about a second); of a larger one damage is told when met."""
_PRAGMAS = ("foreign_keys = ON", "synchronous = FULL", "cache_size = -16384")


def engine_in_memory() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    return _configured(engine, _begin_writing, ())


def engine_on(path: Path, begin: Callable[[Connection], None], *pragmas: str, connections: int = 1) -> Engine:
    """An engine whose transactions start with `begin`, and whose connections have our settings and these."""
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
    )
    return _configured(engine, begin, pragmas)


def _configured(engine: Engine, begin: Callable[[Connection], None], pragmas: Sequence[str]) -> Engine:
    def connected(connection: DBAPIConnection, _record: Any) -> None:
        connection.isolation_level = None  # the driver leaves BEGIN to us
        with closing(connection.cursor()) as cursor:
            for pragma in (*_PRAGMAS, *pragmas):
                cursor.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)
    return engine


def _begin_writing(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE")


def ensure(path: Path, name: str, steps: Sequence[Step]) -> None:
    """Makes the file if there is none. `DataError` when there is something else, or only a part of it."""
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
    """Made aside and put in place whole, so that a file without tables is never a young one: it is a damaged one."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    engine = engine_on(aside, _begin_writing)
    try:
        with engine.begin() as conn:
            migrate(conn, name, steps)
        engine.dispose()
        with suppress(FileExistsError):
            os.link(aside, path)  # unlike a rename, never over a file that another process put there meanwhile
    finally:
        engine.dispose()
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check(path: Path, name: str) -> None:
    """Sees to the write-ahead log, and looks for damage: `DataError`."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise DataError(f"{name} is on a file system that cannot share memory: move it to a local disk.")
        tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if ledger_schema.name not in tables:
            raise DataError(f"{name} is not a ledger: it is a database of something else, or damaged.")
        if path.stat().st_size <= _CHECKED_BYTES:
            (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if first != "ok":
                raise DataError(f"{name} is damaged ({first}): restore it from a backup.")
