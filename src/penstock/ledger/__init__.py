"""Collections, documents, their versions and chunks' text, API keys: the only truth."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path

from penstock.errors import ConfigError
from penstock.ledger.base import Ledger

__all__ = ["Ledger", "open_ledger"]


def open_ledger(url: str, *, clock: Callable[[], float] = time.time) -> Ledger:
    """The ledger at `memory://` or `sqlite:///path/of/file`, to be entered as an async context manager.

    `clock` gives Unix seconds. `ConfigError` for any other URL.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "memory" and not rest:
        database = importlib.import_module("penstock.ledger.sqlite").MemoryDatabase()
    elif scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        database = importlib.import_module("penstock.ledger.sqlite").FileDatabase(Path(rest[1:]))
    else:
        raise ConfigError(f"{url!r} is not a ledger: use sqlite:///path/of/file or memory://.")
    ledger: Ledger = importlib.import_module("penstock.ledger.sql").SqlLedger(database, clock=clock)
    return ledger
