"""Collections, documents, their versions and chunks' text, API keys: the only truth."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import ConfigError, MissingDependency
from penstock.ledger.base import Ledger

if TYPE_CHECKING:  # what is behind it takes long to import, and clients of `Ledger` do without
    from penstock.ledger.database import Database

__all__ = ["Ledger", "open_ledger"]


def open_ledger(url: str, *, clock: Callable[[], float] = time.time) -> Ledger:
    """The ledger at `memory://`, `sqlite:///path/of/file` or `postgresql://user:password@host/database`.

    To be entered as an async context manager. `clock` gives Unix seconds. `ConfigError` for any other URL.
    """
    scheme, _, rest = url.partition("://")
    database: Database
    if scheme == "memory" and not rest:
        database = importlib.import_module("penstock.ledger.sqlite").MemoryDatabase()
    elif scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        database = importlib.import_module("penstock.ledger.sqlite").FileDatabase(Path(rest[1:]))
    elif scheme == "postgresql":
        database = _postgres(url)
    else:
        raise ConfigError(
            f"There is no ledger for {scheme!r}: use sqlite:///path/of/file, postgresql://… or memory://."
        )
    ledger: Ledger = importlib.import_module("penstock.ledger.sql").SqlLedger(database, clock=clock)
    return ledger


def _postgres(url: str) -> "Database":
    try:
        for driver in ("asyncpg", "greenlet"):
            importlib.import_module(driver)
    except ImportError as exc:
        raise MissingDependency(f'A ledger on PostgreSQL needs {exc.name}: pip install "penstock[postgres]".') from exc
    database: Database = importlib.import_module("penstock.ledger.postgres").PostgresDatabase(url)
    return database
