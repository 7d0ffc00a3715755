"""HTTP/1.1 to one provider: POST a JSON body, read the reply as it comes, hang up at once when nobody wants it.

Why not httpx: at a hundred streams it takes 96 µs of CPU for a token's bytes, where this and all that is done with them
takes 40, and its pool walks every connection at every request (5 ms of CPU a request at 200 streams). The parser is
llhttp, as in uvicorn.
Proxies of the environment are honoured for https (HTTPS_PROXY, ALL_PROXY, NO_PROXY). Redirects are not followed: they
would carry the key elsewhere.
"""

import asyncio
import contextlib
import math
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

_MAX_HEAD_BYTES = 64 * 1024
_MAX_HELD_BYTES = 256 * 1024
"""Of a reply's body, unread: then no more is taken from the connection until somebody reads."""
_MAX_IDLE_S = 30.0
"""Longer than this, and a firewall on the way may have forgotten the connection."""


class ConnectFailed(Exception):
    """The provider cannot be reached: its name does not resolve, its port is closed, or TLS fails."""


class BrokenReply(Exception):
    """The connection ended, or spoke something else than HTTP, before the reply was whole."""


class _Connection(asyncio.Protocol):
    """Hands what comes to the reply that is awaited on it."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.used_at = time.monotonic()
        self._clear: asyncio.Future[None] | None = None

    @property
    def usable(self) -> bool:
        return time.monotonic() - self.used_at < _MAX_IDLE_S and not self.transport.is_closing()

    def hang_up(self) -> None:
        self.transport.abort()

    async def send(self, data: bytes) -> None:
        """Returns once the transport has room for more. Raises `BrokenReply`."""
        self.transport.write(data)
        if self._clear is not None:
            await self._clear

    # What the transport calls:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.reply is None:  # nobody asked for it
            self.hang_up()
        else:
            self.reply.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.reply is not None:
            self.reply.lost(exc)
        if self._clear is not None and not self._clear.done():
            self._clear.set_exception(_broken(exc))

    def pause_writing(self) -> None:
        self._clear = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._clear is not None and not self._clear.done():
            self._clear.set_result(None)
        self._clear = None


class Reply:
    """A reply whose head has come; `read` gives its body. Names of `headers` are in small letters."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._begun = self._complete = False
        self._head_bytes = self._held_bytes = 0
        self._error: BrokenReply | None = None
        self._news: asyncio.Future[None] | None = None
        self._by = math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self.headers: dict[str, str] = {}
        self.reason = ""
        self.reusable = False

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    @property
    def version(self) -> str:
        return str(self._parser.get_http_version())

    async def begin(self) -> None:
        while not self._begun:
            await self._wait()

    async def read(self, *, by: float = math.inf) -> bytes:
        """What of the body has come, empty at its end; `BrokenReply` when the end never comes.

        `TimeoutError` when nothing comes until `by`, in the event loop's time.
        """
        while not self._parts and not self._complete:
            await self._wait(by)
        if self._held_bytes > _MAX_HELD_BYTES:
            self._connection.transport.resume_reading()
        self._held_bytes = 0
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    async def _wait(self, by: float = math.inf) -> None:
        if self._error is not None:
            raise self._error
        self._news = asyncio.get_running_loop().create_future()
        self._by = by
        if by < math.inf and (self._alarm is None or self._alarm.when() > by):
            self.close()
            self._alarm = self._news.get_loop().call_at(by, self._ring)
        try:
            await self._news
        finally:
            self._news = None

    def _ring(self) -> None:
        """One alarm a reply, put off when it rings too early: to set one for each piece costs more than the piece."""
        self._alarm = None
        if self._news is None or self._news.done():
            return
        loop = self._news.get_loop()
        if self._by > loop.time():
            self._alarm = loop.call_at(self._by, self._ring) if self._by < math.inf else None
        else:
            self._news.set_exception(TimeoutError())

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # What the connection calls:

    def feed(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._error = BrokenReply(f"the reply is not HTTP: {exc}")
            self._error.__cause__ = exc
        if not self._begun:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._error = BrokenReply(f"the reply's head is larger than {_MAX_HEAD_BYTES} bytes")
        if self._held_bytes > _MAX_HELD_BYTES:
            self._connection.transport.pause_reading()
        self._tell()

    def lost(self, exc: Exception | None) -> None:
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        self.reusable = False
        if self._begun and not framed and exc is None:
            self._complete = True
        elif not self._complete and self._error is None:
            self._error = _broken(exc)
        self._tell()

    # What the parser calls:

    def on_status(self, reason: bytes) -> None:
        self.reason = reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.status >= 200:
            self._begun = True
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._held_bytes += len(body)

    def on_message_complete(self) -> None:
        self._complete = self._begun
        self.reusable = self._begun and self._parser.should_keep_alive()


class Upstream:
    """Connections to one origin, reused last in, first out. Not bounded here: callers hold a slot of their limiter."""

    def __init__(self, base_url: str, *, connect_s: float, tls: ssl.SSLContext | None = None) -> None:
        url = urlsplit(base_url)
        if not url.hostname:
            raise ValueError(f"{url.scheme}://… has no host")
        self._secure = url.scheme == "https"
        self._host = url.hostname
        self._port = url.port or (443 if self._secure else 80)
        self._path = url.path.rstrip("/")
        self._connect_s = connect_s
        self._tls = (tls or ssl.create_default_context()) if self._secure else None
        self._proxy = _proxy_of(self._host) if self._secure else None
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self.name = bracketed if url.port is None else f"{bracketed}:{url.port}"

    @contextlib.asynccontextmanager
    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[Reply]:
        """The reply to a JSON body. Leaving the block before the body's end closes the connection at once."""
        connection = self._take() or await self._connect()
        self._busy.add(connection)
        reply = connection.reply = Reply(connection)
        try:
            await connection.send(self._head(path, len(body), headers) + body)
            await reply.begin()
            yield reply
        finally:
            reply.close()
            connection.reply = None
            self._busy.discard(connection)
            if reply.reusable:
                connection.used_at = time.monotonic()
                self._idle.append(connection)
            else:
                connection.hang_up()

    async def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.hang_up()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.hang_up()
        return None

    def _head(self, path: str, size: int, headers: Mapping[str, str]) -> bytes:
        fields = {
            "host": self.name,
            "content-type": "application/json",
            "content-length": str(size),
            "accept-encoding": "identity",
            **headers,
        }
        lines = [f"POST {self._path}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_s):
                if self._proxy:
                    return await self._tunnel(*self._proxy)
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
                return connection
        except TimeoutError as exc:
            raise ConnectFailed(f"no connection within {self._connect_s:g} s") from exc
        except ssl.SSLError as exc:
            raise ConnectFailed(f"TLS failed: {exc.reason or exc}") from exc
        except OSError as exc:
            raise ConnectFailed(exc.strerror or str(exc)) from exc

    async def _tunnel(self, host: str, port: int) -> _Connection:
        """TLS to the provider through an HTTP proxy (RFC 9110 §9.3.6)."""
        loop = asyncio.get_running_loop()
        _, front = await loop.create_connection(_Connection, host, port)
        reply = front.reply = Reply(front)
        try:
            authority = f"{self._host}:{self._port}"
            await front.send(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
            await reply.begin()
            _check_tunnel(reply)
            tls = self._tls or ssl.create_default_context()
            connection = _Connection()
            transport = await loop.start_tls(front.transport, connection, tls, server_hostname=self._host)
            assert transport is not None
            connection.connection_made(transport)
        except BrokenReply as exc:
            front.hang_up()
            raise ConnectFailed(f"the proxy {host}:{port} does not speak HTTP") from exc
        except BaseException:
            front.hang_up()
            raise
        return connection


def _check_tunnel(reply: Reply) -> None:
    if reply.status != 200:
        raise ConnectFailed(f"the proxy refused: HTTP/{reply.version} {reply.status} {reply.reason}")


def _broken(exc: Exception | None) -> BrokenReply:
    """What the loss of a connection means to who waits for its reply."""
    if exc is None:
        return BrokenReply("the connection was closed in the middle of the reply")
    broken = BrokenReply(f"the connection broke: {exc or type(exc).__name__}")
    broken.__cause__ = exc
    return broken


def _proxy_of(host: str) -> tuple[str, int] | None:
    proxies = urllib.request.getproxies()
    url = urlsplit(proxies.get("https") or proxies.get("all") or "")
    if not url.hostname or urllib.request.proxy_bypass(host):
        return None
    return url.hostname, url.port or 80
