"""How a flow becomes a method of both clients: it blocks on the one, and is awaited on the other."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from penstock.client.flow import Flow, Stream
from penstock.client.transport import AsyncTransport, SyncTransport

P = ParamSpec("P")
T = TypeVar("T")


class verb(Generic[P, T]):  # noqa: N801 - read as a decorator
    """A method that makes a `Flow[T]` becomes one that returns T (sync client) or an awaitable T (async client)."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self.flow = flow
        update_wrapper(self, flow)  # type: ignore[arg-type]  # for help() and documentation tools

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: SyncTransport, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncTransport, owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: SyncTransport | AsyncTransport | None, owner: type) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> T | Awaitable[T]:
            return client.run(self.flow(client, *args, **kwargs))

        return update_wrapper(call, self.flow)


class stream_verb(Generic[P, T]):  # noqa: N801 - read as a decorator
    """A method that makes a `Stream[T]` becomes one that iterates over Ts, with `for` or with `async for`.

    Leave an iteration early with `contextlib.closing` or `aclosing`, so that its connection is closed at once.
    """

    def __init__(self, flow: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self.flow = flow
        update_wrapper(self, flow)  # type: ignore[arg-type]  # for help() and documentation tools

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: SyncTransport, owner: type) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(self, client: AsyncTransport, owner: type) -> Callable[P, AsyncGenerator[T, None]]: ...
    def __get__(self, client: SyncTransport | AsyncTransport | None, owner: type) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None] | AsyncGenerator[T, None]:
            return client.iterate(self.flow(client, *args, **kwargs))

        return update_wrapper(call, self.flow)
