"""Public hosts that are really a server on this machine, for tests of what fetches from URLs: no name is looked up, and
nothing leaves the machine."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeAlias

import httpcore

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PUBLIC = "93.184.216.34"
PUBLIC6 = "2606:2800:220:1::1"


class FakeNetwork(httpcore.AsyncNetworkBackend):
    """`names` maps a host to the answers that its look-ups get, one after the other (the last one for ever).

    Whatever address is dialled is put on record, and the server at `server_port` of this machine answers.
    """

    def __init__(self, names: dict[str, Sequence[Sequence[str]]], server_port: int) -> None:
        self._answers = {name: list(answers) for name, answers in names.items()}
        self._server_port = server_port
        self._real = httpcore.AnyIOBackend()
        self.dialled: list[tuple[str, int]] = []
        self.looked_up: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:  # noqa: ARG002 - the signature of `Resolve`
        self.looked_up.append(host)
        answers = self._answers.get(host)
        if not answers:
            raise OSError(-2, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - the library's signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        self.dialled.append((host, port))
        return await self._real.connect_tcp("127.0.0.1", self._server_port, timeout=timeout)


class FileServer:
    """HTTP over real sockets: `replies` by path, each the bytes of a whole reply, or a function that writes it."""

    def __init__(self) -> None:
        self.replies: dict[str, bytes | Serve] = {}
        self.requests: list[bytes] = []
        self.port = 0
        self.open = 0

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            path = head.split(b" ")[1].decode()
            reply = self.replies.get(path, http_reply(b"nothing here", status=404))
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            with contextlib.suppress(ConnectionError):
                writer.close()
                await writer.wait_closed()


def http_reply(body: bytes, *, status: int = 200, media_type: str = "text/plain", **headers: str) -> bytes:
    fields = {"content-type": media_type, "content-length": str(len(body)), "connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def redirect_reply(location: str, status: int = 302) -> bytes:
    return http_reply(b"", status=status, location=location)
