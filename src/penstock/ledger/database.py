"""What runs the ledger's operations: plain functions over a connection, each one transaction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, select

from penstock.errors import InvalidInput

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item


class Database(ABC):
    """An engine. A function that it was given may be run again from the start (when another one's failure undid the
    transaction that they shared), so it must have no effect but on its connection."""

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs it on what is committed; what it does to the database is not kept."""
        with _text_checked():
            return await self._read(lambda conn: function(conn, *args, **kwargs))

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs it in a transaction that is committed and durable when this returns, or undone when this raises."""
        with _text_checked():
            return await self._write(lambda conn: function(conn, *args, **kwargs))

    async def write_each(self, function: Callable[[Connection, Sequence[I]], Sequence[T | Exception]], item: I) -> T:
        """As `write`, for a function that does many items at once: an engine may hand it those of several callers.

        It says of each item what came of it; an error there has written nothing of that item.
        """
        with _text_checked():
            return await self._write_each(function, item)

    async def ping(self) -> None:
        """See `Ledger.ping`."""
        await self.read(_select_one)

    @abstractmethod
    async def open(self) -> None:
        """See `Ledger.open`."""

    @abstractmethod
    async def close(self) -> None:
        """Ends after what was begun; nothing may be asked of it any more."""

    @abstractmethod
    async def _read(self, call: Callable[[Connection], T]) -> T: ...

    @abstractmethod
    async def _write(self, call: Callable[[Connection], T]) -> T: ...

    async def _write_each(self, function: Callable[[Connection, Sequence[I]], Sequence[T | Exception]], item: I) -> T:
        [result] = await self._write(lambda conn: function(conn, [item]))
        if isinstance(result, Exception):
            raise result
        return result


@contextmanager
def _text_checked() -> Iterator[None]:
    """Drivers meet half of a surrogate pair in an id that somebody sent when they encode it."""
    try:
        yield
    except UnicodeEncodeError as exc:
        raise InvalidInput(f"This is not valid Unicode: a lone surrogate at character {exc.start}.") from exc


def _select_one(conn: Connection) -> None:
    conn.execute(select(1))
