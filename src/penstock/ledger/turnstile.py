"""Taking turns with other processes that write to the same SQLite file.

SQLite's own waiting is a poll with growing pauses, so a process that commits group after group hardly ever lets another
one in: a second for one small write was measured, 20 ms with this. Whoever waits for the database holds the turnstile,
and who has just written must pass it again, behind those who wait.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

_PAUSE_S = 0.0005


class Turnstile:
    """For the one writing thread of a process. `path`: an empty file that is there for its lock only.

    A process that dies lets go of it; one that hangs is waited for `timeout_s` at most.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._descriptor: int | None = None

    def begin(self, conn: Connection) -> None:
        """Begins a write transaction on a connection whose own waiting is off. Raises SQLite's "locked" in the end."""
        deadline = time.monotonic() + self._timeout_s
        with self._passing(deadline):
            while True:
                try:
                    conn.exec_driver_sql("BEGIN IMMEDIATE")
                except OperationalError as exc:
                    code = getattr(exc.orig, "sqlite_errorcode", 0)
                    if code & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                        raise
                    time.sleep(_PAUSE_S)
                else:
                    return

    @contextmanager
    def _passing(self, deadline: float) -> Iterator[None]:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_PAUSE_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
