"""The SQLite file of a disk cache. Raises SQLite's errors: its user decides what they are worth."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zlib import crc32

from penstock.cache.base import ENTRY_BYTES
from penstock.cache.metrics import EVICTED

_KEYS_A_QUERY = 500
_FULL_AGAIN_AT = 0.95
"""Evicting goes down to this share, so that not every write has to evict."""
_PATIENCE_S = 0.5
"""How long a write waits for another process's."""
_TOUCHED_EVERY_S = 60.0
"""A read notes when an entry was used, but not more often than this, so that most reads write nothing."""

# The log is synced at checkpoints only: a power cut loses the last entries, not the file.
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
"""
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries (
    namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,
    size INTEGER NOT NULL, used_at REAL NOT NULL, expires_at REAL NOT NULL, PRIMARY KEY (namespace, key)
);
CREATE INDEX IF NOT EXISTS entries_by_use ON entries (used_at);
CREATE TABLE IF NOT EXISTS total (size INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON entries BEGIN
    UPDATE total SET size = size + new.size;
END;
CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE OF size ON entries BEGIN
    UPDATE total SET size = size + new.size - old.size;
END;
CREATE TRIGGER IF NOT EXISTS dropped AFTER DELETE ON entries BEGIN
    UPDATE total SET size = size - old.size;
END;
COMMIT;
"""
_SET = """
INSERT INTO entries (namespace, key, value, checksum, size, used_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum,
    size = excluded.size, used_at = excluded.used_at, expires_at = excluded.expires_at
"""


class CacheFile:
    """For one thread. `clock` gives Unix seconds, for other processes and later ones read them too."""

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            self._connection.executescript(_SETTINGS + _TABLES)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def get(self, namespace: str, keys: list[str]) -> dict[str, bytes]:
        now = self._clock()
        found: dict[str, bytes] = {}
        stale: list[tuple[float, int]] = []
        for start in range(0, len(keys), _KEYS_A_QUERY):
            some = keys[start : start + _KEYS_A_QUERY]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(
                "SELECT rowid, key, value, checksum, used_at FROM entries "  # noqa: S608 - only marks are put in
                f"WHERE namespace = ? AND key IN ({marks}) AND expires_at > ?",
                (namespace, *some, now),
            )
            for rowid, key, value, checksum, used_at in rows:
                if crc32(value) == checksum:
                    found[key] = value
                    if used_at < now - _TOUCHED_EVERY_S:
                        stale.append((now, rowid))
        if stale:
            self._write("UPDATE entries SET used_at = ? WHERE rowid = ?", stale)
        return found

    def set(self, namespace: str, items: Mapping[str, bytes], ttl_s: float) -> None:
        now = self._clock()
        rows = [
            (namespace, key, value, crc32(value), len(key) + len(value) + ENTRY_BYTES, now, now + ttl_s)
            for key, value in items.items()
        ]
        self._write(_SET, rows)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(statement, rows)
            self._make_room()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _make_room(self) -> None:
        (total,) = self._connection.execute("SELECT size FROM total").fetchone()
        if total <= self._max_bytes:
            return
        evicted = []
        for rowid, size in self._connection.execute("SELECT rowid, size FROM entries ORDER BY used_at"):
            evicted.append((rowid,))
            total -= size
            if total <= self._max_bytes * _FULL_AGAIN_AT:
                break
        self._connection.executemany("DELETE FROM entries WHERE rowid = ?", evicted)
        EVICTED.inc(len(evicted))
