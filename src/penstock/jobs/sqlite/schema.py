"""The tables, and how the file is opened: what is wrong with it is said in an error that names it."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import ConfigError, DataError, PenstockError, StorageFull, Unavailable

VERSION = 1
_APPLICATION_ID = 0x50534A42  # "PSJB"
_CHECK_BELOW_BYTES = 64 * 1024 * 1024
_OPEN_TIMEOUT_S = 5.0
_OPEN_RETRY_S = 0.02

# Partial indexes keep each list as short as what it is for: 100,000 finished jobs cost a lease nothing. What depends on
# a job's kind is in the index of the ready ones, so that a worker never wades through jobs it cannot run.
_TABLES = """
CREATE TABLE job (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL, tenant TEXT NOT NULL, priority TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    payload TEXT NOT NULL, size_bytes INTEGER NOT NULL, digest TEXT NOT NULL, key TEXT, subject TEXT,
    rank REAL NOT NULL, run_at REAL NOT NULL, due REAL, deadline REAL,
    time_limit_s REAL NOT NULL, result_ttl_s REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, excused INTEGER NOT NULL DEFAULT 0, max_attempts INTEGER NOT NULL,
    alone INTEGER NOT NULL DEFAULT 0, cancel INTEGER NOT NULL DEFAULT 0,
    worker TEXT, lease_until REAL,
    seq INTEGER NOT NULL DEFAULT 0, progress TEXT, result TEXT, error TEXT, failures TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL, started_at REAL, finished_at REAL, expires_at REAL, events_until REAL
) STRICT;
CREATE INDEX job_ready ON job (priority, kind, alone, rank, run_at) WHERE state = 'queued' AND due IS NULL;
CREATE INDEX job_due ON job (due, priority) WHERE state = 'queued' AND due IS NOT NULL;
CREATE INDEX job_deadline ON job (deadline) WHERE state = 'queued' AND deadline IS NOT NULL;
CREATE INDEX job_lease ON job (lease_until) WHERE state = 'running';
CREATE INDEX job_worker ON job (worker, alone) WHERE state = 'running';
CREATE INDEX job_cancel ON job (n) WHERE state = 'running' AND cancel = 1;
CREATE INDEX job_dead ON job (n) WHERE state IN ('failed', 'cancelled');
CREATE INDEX job_expires ON job (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX job_events_until ON job (events_until) WHERE events_until IS NOT NULL;
CREATE INDEX job_tenant ON job (tenant, n);
CREATE INDEX job_subject ON job (subject) WHERE subject IS NOT NULL;
CREATE UNIQUE INDEX job_key ON job (tenant, key) WHERE key IS NOT NULL;

CREATE TABLE event (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_job ON event (job, seq);

-- What is live (queued or running), and the last rank given. The tenant '' is the whole class: the rank last leased.
CREATE TABLE lane (
    priority TEXT NOT NULL, tenant TEXT NOT NULL,
    jobs INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0, rank REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (priority, tenant)
) STRICT, WITHOUT ROWID;

CREATE TABLE measure (
    priority TEXT NOT NULL, slot INTEGER NOT NULL, name TEXT NOT NULL, bucket INTEGER NOT NULL,
    count INTEGER NOT NULL, PRIMARY KEY (priority, slot, name, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (id TEXT PRIMARY KEY, info TEXT NOT NULL, seen REAL NOT NULL) STRICT, WITHOUT ROWID;
"""


def connect(path: str, *, cached_statements: int = 128) -> sqlite3.Connection:
    """A connection that may be handed between threads (one at a time) and never begins a transaction by itself."""
    cx = sqlite3.connect(
        path, timeout=2.0, isolation_level=None, check_same_thread=False, cached_statements=cached_statements
    )
    cx.execute("PRAGMA temp_store = MEMORY")
    return cx


def prepare(path: str) -> sqlite3.Connection:
    """The writer's connection, with the tables made. Raises DataError that names the file, ConfigError."""
    if sqlite3.sqlite_version_info < (3, 38, 0):
        raise ConfigError(f"SQLite 3.38 or newer is needed for jobs; this Python has {sqlite3.sqlite_version}")
    if not Path(path).parent.is_dir():
        raise DataError(f"the jobs file {path} cannot be made: its folder does not exist")
    until = time.monotonic() + _OPEN_TIMEOUT_S
    with explained(path, opening=True):
        while True:
            try:
                return _prepared(path)
            except sqlite3.OperationalError as exc:
                # Two processes that make the file at once: SQLite does not wait where both change its journal mode.
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(_OPEN_RETRY_S)


def _prepared(path: str) -> sqlite3.Connection:
    cx = connect(path)
    try:
        _check(cx, path)
        cx.execute("PRAGMA journal_mode = WAL")
        cx.execute("PRAGMA wal_autocheckpoint = 4000")
        _create(cx, path)
    except BaseException:
        cx.close()
        raise
    return cx


def _check(cx: sqlite3.Connection, path: str) -> None:
    if Path(path).stat().st_size > _CHECK_BELOW_BYTES:
        return
    found = cx.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DataError(f"the jobs file {path} is damaged ({found}); restore it, or delete it: jobs are made anew")


def _create(cx: sqlite3.Connection, path: str) -> None:
    cx.execute("BEGIN IMMEDIATE")
    try:
        version = cx.execute("PRAGMA user_version").fetchone()[0]
        application = cx.execute("PRAGMA application_id").fetchone()[0]
        empty = cx.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and application != _APPLICATION_ID:
            raise DataError(f"the jobs file {path} is an SQLite database of another program")
        if version > VERSION:
            raise DataError(f"the jobs file {path} is of a newer Penstock (schema {version}, known: {VERSION})")
        if empty:
            for statement in _TABLES.split(";\n"):
                cx.execute(statement)
            cx.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            cx.execute(f"PRAGMA user_version = {VERSION}")
        cx.execute("COMMIT")
    finally:
        if cx.in_transaction:
            cx.execute("ROLLBACK")


@contextmanager
def explained(path: str, *, opening: bool = False) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as exc:
        raise explain(exc, path, opening=opening) from exc


def explain(exc: sqlite3.Error, path: str, *, opening: bool = False) -> PenstockError:
    """What an error of SQLite means, with the file's name."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"the disk of the jobs file {path} is full; free some space")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DataError(f"the jobs file {path} is damaged or no database ({exc}); restore or delete it")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        message = f"the jobs file {path} is locked by another process"
        return DataError(message) if opening else Unavailable(message)
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return DataError(f"the jobs file {path} or its folder cannot be written ({exc})")
    return Unavailable(f"the jobs file {path} failed: {exc}", code="storage_error")
