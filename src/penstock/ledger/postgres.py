"""The ledger's PostgreSQL database, which many machines share. Each operation is a transaction of its own.

Operations lock the row of their collection first, so that those on one collection happen one after the other. A
deadlock (which purging can run into) is tried again.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from penstock.errors import ConfigError, PenstockError, Unavailable
from penstock.ledger.database import Database
from penstock.ledger.migrations import migrate
from penstock.ledger.postgres_errors import may_try_again, translate

T = TypeVar("T")

_CONNECTIONS = 10
_CONNECT_TIMEOUT_S = 5.0
_COMMAND_TIMEOUT_S = 60.0
_ATTEMPTS = 5
_MIGRATION_LOCK = 7_302_115_001
"""Any number, the same in every Penstock: who migrates holds it."""


class PostgresDatabase(Database):
    """`url` is a `postgresql://` URL; `?host=/run/postgresql` names a socket's folder."""

    def __init__(self, url: str) -> None:
        try:
            target = make_url(url).set(drivername="postgresql+asyncpg")
        except ArgumentError as exc:
            raise ConfigError("The ledger's URL is none: write postgresql://user:password@host/database.") from exc
        self._name = f"The ledger {target.set(drivername='postgresql').render_as_string(hide_password=True)}"
        self._engine = create_async_engine(
            target,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            connect_args={"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _COMMAND_TIMEOUT_S},
        )
        self._free = asyncio.Semaphore(_CONNECTIONS)
        self._closed = False
        # A read is a statement or two, each on what is committed then: BEGIN and ROLLBACK would be mere round trips.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def open(self) -> None:
        try:
            await self.write(_migrate, self._name)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._closed = True
        for _ in range(_CONNECTIONS):  # what was begun is waited for
            await self._free.acquire()
        await self._engine.dispose()

    async def _read(self, call: Callable[[Connection], T]) -> T:
        return await self._try(self._reading, call, again_when_disconnected=True)

    async def _write(self, call: Callable[[Connection], T]) -> T:
        # Not again when the connection breaks: whether a commit came through is not known then.
        return await self._try(self._engine, call, again_when_disconnected=False)

    async def _try(self, engine: AsyncEngine, call: Callable[[Connection], T], *, again_when_disconnected: bool) -> T:
        if self._closed:
            raise Unavailable("The ledger is closed: the process is about to end.")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._free, engine.begin() as conn:
                    return await conn.run_sync(call)
            except DBAPIError as exc:
                again = may_try_again(exc) or (again_when_disconnected and exc.connection_invalidated)
                if not again or attempt == _ATTEMPTS:
                    raise translate(exc, self._name) from exc
            except OSError as exc:  # TimeoutError is one
                raise _unreachable(self._name, exc) from exc
        raise AssertionError("the last attempt returns or raises")


def _unreachable(name: str, exc: OSError) -> PenstockError:
    return Unavailable(f"{name} cannot be reached ({exc or 'timed out'}): check that PostgreSQL runs there.")


def _migrate(conn: Connection, name: str) -> None:
    conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
    migrate(conn, name)
