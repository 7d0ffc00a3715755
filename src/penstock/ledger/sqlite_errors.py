"""What SQLite's errors mean to us."""

import sqlite3

from penstock.errors import Conflict, DataError, PenstockError, StorageFull, Unavailable

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNREACHABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def translate(exc: BaseException | None, name: str) -> PenstockError:
    """Our error for one of SQLite; `name` begins the sentence: "The ledger /data/ledger.db"."""
    extended = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code in _DAMAGED:
        return DataError(f"{name} is damaged ({exc}): restore it from a backup.")
    if code in _FULL or extended in _FULL:
        return StorageFull(f"{name} cannot grow: the disk is full. Free some space.", retry_after_s=30)
    if code in _BUSY:
        return Unavailable(f"{name} is locked by another process ({exc}): end that process, or try again.")
    if code in _UNREACHABLE:
        return DataError(f"{name} cannot be written ({exc}): check the permissions of the file and its folder.")
    if code == sqlite3.SQLITE_IOERR:
        return Unavailable(f"{name} cannot be read or written ({exc}): check the disk.")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict(f"{name} holds something that contradicts this: {exc}.")
    return DataError(f"{name} does not answer as it should: {exc}.")
