"""HTTP/1.1 to one provider: POST a JSON body, read the reply as it comes, hang up at once when nobody wants it.

Why not httpx: at a hundred streams it takes 96 µs of CPU for a token's bytes, where this and all that is done with them
takes 51, and its pool walks every connection at every request (5 ms of CPU a request at 200 streams). The parser is
llhttp, as in uvicorn.
Proxies of the environment are honoured for https (HTTPS_PROXY, ALL_PROXY, NO_PROXY). Redirects are not followed: they
would carry the key elsewhere.
"""

import asyncio
import contextlib
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

_READ_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_IDLE_S = 30.0
"""Longer than this, and a firewall on the way may have forgotten the connection."""


class ConnectFailed(Exception):
    """The provider cannot be reached: its name does not resolve, its port is closed, or TLS fails."""


class BrokenReply(Exception):
    """The connection ended, or spoke something else than HTTP, before the reply was whole."""


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float = field(default_factory=time.monotonic)

    @property
    def usable(self) -> bool:
        fresh = time.monotonic() - self.used_at < _MAX_IDLE_S
        return fresh and not self.reader.at_eof() and not self.writer.transport.is_closing()

    def hang_up(self) -> None:
        self.writer.transport.abort()


class Reply:
    """A reply whose head has come; `read` gives its body. Names of `headers` are in small letters."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._begun = self._complete = False
        self._head_bytes = 0
        self.headers: dict[str, str] = {}
        self.reusable = False

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    async def begin(self) -> None:
        while not self._begun:
            self._head_bytes += await self._feed()
            if self._head_bytes > _MAX_HEAD_BYTES and not self._begun:
                raise BrokenReply(f"the reply's head is larger than {_MAX_HEAD_BYTES} bytes")

    async def read(self) -> bytes:
        """The next piece of the body as it comes, empty at its end; `BrokenReply` when the end never comes."""
        while not self._parts and not self._complete:
            await self._feed()
        piece = b"".join(self._parts)
        self._parts.clear()
        return piece

    async def _feed(self) -> int:
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError as exc:
            raise BrokenReply(f"the connection broke: {exc or type(exc).__name__}") from exc
        if not data:
            self._end_of_stream()
            return 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            raise BrokenReply(f"the reply is not HTTP: {exc}") from exc
        return len(data)

    def _end_of_stream(self) -> None:
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self._begun or framed:
            raise BrokenReply("the connection was closed in the middle of the reply")
        self._complete = True

    # What the parser calls:

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.status >= 200:
            self._begun = True
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

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
        reply = Reply(connection.reader)
        try:
            connection.writer.write(self._head(path, len(body), headers) + body)
            await _drain(connection.writer)
            await reply.begin()
            yield reply
        finally:
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
                return _Connection(*await asyncio.open_connection(self._host, self._port, ssl=self._tls))
        except TimeoutError as exc:
            raise ConnectFailed(f"no connection within {self._connect_s:g} s") from exc
        except ssl.SSLError as exc:
            raise ConnectFailed(f"TLS failed: {exc.reason or exc}") from exc
        except OSError as exc:
            raise ConnectFailed(exc.strerror or str(exc)) from exc

    async def _tunnel(self, host: str, port: int) -> _Connection:
        """TLS to the provider through an HTTP proxy (RFC 9110 §9.3.6)."""
        reader, writer = await asyncio.open_connection(host, port)
        try:
            authority = f"{self._host}:{self._port}"
            writer.write(f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode())
            _check_tunnel(await reader.readuntil(b"\r\n\r\n"))
            await writer.start_tls(self._tls or ssl.create_default_context(), server_hostname=self._host)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
            writer.transport.abort()
            raise ConnectFailed(f"the proxy {host}:{port} does not speak HTTP") from exc
        except BaseException:
            writer.transport.abort()
            raise
        return _Connection(reader, writer)


def _check_tunnel(head: bytes) -> None:
    status_line = head.partition(b"\r\n")[0].decode("latin-1")
    if status_line.split(" ")[1:2] != ["200"]:
        raise ConnectFailed(f"the proxy refused: {status_line}")


async def _drain(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.drain()
    except OSError as exc:
        raise BrokenReply(f"the connection broke: {exc or type(exc).__name__}") from exc


def _proxy_of(host: str) -> tuple[str, int] | None:
    proxies = urllib.request.getproxies()
    url = urlsplit(proxies.get("https") or proxies.get("all") or "")
    if not url.hostname or urllib.request.proxy_bypass(host):
        return None
    return url.hostname, url.port or 80
