"""A server whose replies the tests write, over real HTTP, and one way to run a verb on either client."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from penstock.client import AsyncClient, Client, ClientOptions


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Say:
    """A scripted reply. `cut`: the connection is closed before the body is complete; `drop`: before any reply."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: bool = False
    drop: bool = False

    def payload(self) -> bytes:
        return self.raw if self.raw is not None else msgspec.json.encode(self.body)


class Scripted:
    """Answers the requests in the order in which `say` and `refuse` were called, and keeps what it saw."""

    def __init__(self) -> None:
        self.script: list[Say] = []
        self.seen: list[Seen] = []
        script, seen = self.script, self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen.append(Seen(self.command, self.path, headers, body))
                say = script.pop(0)
                if say.drop:
                    self.close_connection = True
                    return
                payload = say.payload()
                self.send_response(say.status)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(payload) + (1 if say.cut else 0)))
                self.end_headers()
                self.wfile.write(payload)
                self.close_connection = say.cut

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names are the library's

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def say(self, body: Any = None, status: int = 200, **more: Any) -> None:
        self.script.append(Say(status, body, **more))

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        body = {"status": status, "code": code, "detail": "Why.", **more}
        self.say(body, status, headers={"content-type": "application/problem+json", **(headers or {})})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


Run = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, server: Scripted) -> Run:
    """`run(lambda client: client.get_job("job_1"))` on both clients; what is iterated comes as a list."""
    options = ClientOptions(
        url=server.url, api_key="secret", attempts=3, refused_attempts=4, first_pause_s=0.001, max_pause_s=5.0
    )

    def run_sync(use: Callable[[Any], Any]) -> Any:
        with Client(options=options) as client:
            result = use(client)
            return list(result) if isinstance(result, Iterator) else result

    async def run_async(use: Callable[[Any], Any]) -> Any:
        async with AsyncClient(options=options) as client:
            result = use(client)
            if isinstance(result, AsyncIterator):
                return [item async for item in result]
            return await result if isinstance(result, Awaitable) else result

    if request.param == "sync":
        return run_sync
    return lambda use: asyncio.run(run_async(use))
