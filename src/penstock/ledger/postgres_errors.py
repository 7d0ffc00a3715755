"""What PostgreSQL's errors mean to us, by SQLSTATE (PostgreSQL documentation, appendix A)."""

from sqlalchemy.exc import DBAPIError

from penstock.errors import ConfigError, Conflict, DataError, InvalidInput, PenstockError, StorageFull, Unavailable

_SERIALIZATION_FAILURE, _DEADLOCK = "40001", "40P01"
_CACHED_PLAN_CHANGED = "0A000"
_DISK_FULL = "53100"
_NOT_IN_REPERTOIRE = {"22021", "22P05"}
_BAD_ARGUMENT = "invalid input for query argument"
"""The driver's words; it has no code for what it refuses to send."""
_REFUSED = {"28000", "28P01", "3D000", "42501"}


def _sqlstate(exc: DBAPIError) -> str:
    return getattr(exc.orig, "sqlstate", None) or ""


def may_try_again(exc: DBAPIError) -> bool:
    """Whether the transaction was undone for a reason that is gone the next time."""
    return _sqlstate(exc) in {_SERIALIZATION_FAILURE, _DEADLOCK, _CACHED_PLAN_CHANGED}


def translate(exc: DBAPIError, name: str) -> PenstockError:
    """Our error for one of PostgreSQL; `name` begins the sentence and holds no password."""
    state = _sqlstate(exc)
    if state == _DISK_FULL:
        return StorageFull(f"{name} cannot grow: the server's disk is full. Free some space.", retry_after_s=30)
    if state in _NOT_IN_REPERTOIRE or _BAD_ARGUMENT in str(exc.orig):
        return InvalidInput("This text cannot be stored: it holds a NUL character or half of a surrogate pair.")
    if state in _REFUSED:
        return ConfigError(f"{name} refuses us ({exc.orig}): check user, password and database.")
    if state.startswith("23"):
        return Conflict(f"{name} holds something that contradicts this: {exc.orig}.")
    if exc.connection_invalidated or state[:2] in {"08", "40", "53", "55", "57"}:
        return Unavailable(f"{name} does not answer just now: {exc.orig}.")
    return DataError(f"{name} does not answer as it should: {exc.orig}.")
