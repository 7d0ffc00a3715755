"""HTTP/1.1 as uvicorn speaks it, with what it does not bound bounded: the size of a request's head, and its time.

Both are spent before anything of ours is asked, so a client without a key could spend them.
"""

import asyncio
from typing import Any, Final

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_WITHIN_S: Final = 20.0
"""From the connection's begin, or the first byte of a later request, to the end of the headers."""

TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: application/problem+json\r\n"
    b"content-length: 123\r\n\r\n"
    b'{"type":"urn:penstock:error:head_too_large","title":"Request Header Fields Too Large","status":431,'
    b'"code":"head_too_large"}'
)


BUSY: Final = (
    b'{"type":"urn:penstock:error:unavailable","title":"Service Unavailable","status":503,"code":"unavailable",'
    b'"detail":"This process has as many connections as it takes (api.max_connections). Try again soon."}'
)


async def busy(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """The answer where uvicorn would say the same in plain text and not when to come back."""
    headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1"), (b"connection", b"close")]
    length = (b"content-length", str(len(BUSY)).encode())
    await send({"type": "http.response.start", "status": 503, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": BUSY})


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose next request's head is too large or too slow, or that is one too many."""

    _in_head = True
    _head_bytes = 0
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._served = self.app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_WITHIN_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            self._stop_timer()
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self.app = busy if self._most is not None and len(self.connections) > self._most else self._served
        super().on_headers_complete()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
