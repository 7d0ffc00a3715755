"""Sockets under the hood of HTTP: who hung up, and how to hang up rudely."""

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection:
    """One client connection. `sleep` ends early when the client goes away; at most one task sleeps on it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False

    async def sleep(self, seconds: float | None) -> bool:
        """True once `seconds` have passed (None: never), False as soon as the client is gone."""
        if self.closed:
            return False
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, _wake, self._waiter) if seconds is not None else None
        try:
            await self._waiter
        finally:
            if timer:
                timer.cancel()
            self._waiter = None
        return not self.closed

    def lost(self) -> None:
        self.closed = True
        if self._waiter:
            _wake(self._waiter)

    def close(self) -> None:
        """Hang up politely (FIN), in the middle of whatever is being said."""
        self._transport.close()

    def reset(self) -> None:
        """Hang up rudely (RST)."""
        peer = cast("socket.socket", self._transport.get_extra_info("socket"))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class Connections:
    """All open connections of one server, by the client's address."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], Connection] = {}
        self.accepted = 0

    def of(self, client: tuple[str, int]) -> Connection:
        return self.open[client]

    def reset_all(self) -> None:
        for connection in list(self.open.values()):
            connection.reset()


class TrackedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, telling `Connections` (in the app state) who comes and who goes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tracked: Connection | None = None

    @property
    def _connections(self) -> Connections:
        return cast("Connections", self.app_state["connections"])

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is None:
            raise RuntimeError("A TCP connection without a peer address.")
        self._tracked = self._connections.open[self.client] = Connection(transport)
        self._connections.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client is not None and self._tracked is not None:
            self._connections.open.pop(self.client, None)
            self._tracked.lost()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
