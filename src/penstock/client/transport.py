"""The two drivers: they carry out the effects of flows over httpx, and know nothing of what the flows are about."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from penstock.client.flow import Call, Emit, Flow, Open, Pause, Read, Reply, Send, Steps, Stream
from penstock.client.options import ClientOptions

T = TypeVar("T")

PIECE_BYTES = 64 * 1024


class SyncTransport:
    """Blocks the thread that calls. May be shared by threads."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._http = httpx.Client(**_settings(options))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
        steps = Steps(flow)
        with ExitStack() as opened:
            exchange = _SyncExchange(self._http, self.options, opened)
            while steps.effect is not None:
                exchange.advance(steps)
        return steps.result

    def iterate(self, stream: Stream[T]) -> Generator[T, None, None]:
        steps = Steps(stream)
        with ExitStack() as opened:
            exchange = _SyncExchange(self._http, self.options, opened)
            while steps.effect is not None:
                if isinstance(steps.effect, Emit):
                    yield steps.effect.value
                    steps.feed(None)
                else:
                    exchange.advance(steps)


class AsyncTransport:
    """Runs on asyncio. Files to upload are read on the event loop, 64 KiB at a time."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self._http = httpx.AsyncClient(**_settings(options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def run(self, flow: Flow[T]) -> T:
        steps = Steps(flow)
        async with AsyncExitStack() as opened:
            exchange = _AsyncExchange(self._http, self.options, opened)
            while steps.effect is not None:
                await exchange.advance(steps)
        return steps.result

    async def iterate(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        steps = Steps(stream)
        async with AsyncExitStack() as opened:
            exchange = _AsyncExchange(self._http, self.options, opened)
            while steps.effect is not None:
                if isinstance(steps.effect, Emit):
                    yield steps.effect.value
                    steps.feed(None)
                else:
                    await exchange.advance(steps)


class _Joined(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces of some size: httpx gives four a file, and each costs a trip to the socket."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        held = bytearray()
        for part in self._body:
            held += part
            if len(held) >= PIECE_BYTES:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def _joined(request: httpx.Request) -> httpx.Request:
    if isinstance(request.stream, httpx.SyncByteStream):
        request.stream = _Joined(request.stream)
    return request


class _SyncExchange:
    """Carries out the effects of one flow; `opened` closes the response that a flow left open."""

    def __init__(self, http: httpx.Client, options: ClientOptions, opened: ExitStack) -> None:
        self._http = http
        self._options = options
        self._opened = opened
        self._chunks: Iterator[bytes] = iter(())

    def advance(self, steps: Steps[Any]) -> None:
        try:
            reply = self._perform(steps.effect)
        except httpx.HTTPError as exc:
            steps.fail(exc)
        else:
            steps.feed(reply)

    def _perform(self, effect: object) -> Reply | bytes | None:
        match effect:
            case Send(call):
                with ExitStack() as files:
                    request = self._http.build_request(**_arguments(call, self._options, files))
                    return _reply(self._http.send(_joined(request) if call.files else request))
            case Open(call):
                self._opened.close()
                response = self._opened.enter_context(
                    self._http.stream(**_arguments(call, self._options, self._opened))
                )
                self._chunks = response.iter_bytes()
                if response.status_code != 200:
                    response.read()
                return _reply(response)
            case Read():
                return next(self._chunks, None)
            case Pause(seconds):
                time.sleep(seconds)
        return None


class _AsyncExchange:
    """`_SyncExchange` on asyncio."""

    def __init__(self, http: httpx.AsyncClient, options: ClientOptions, opened: AsyncExitStack) -> None:
        self._http = http
        self._options = options
        self._opened = opened
        self._chunks: AsyncIterator[bytes] | None = None

    async def advance(self, steps: Steps[Any]) -> None:
        try:
            reply = await self._perform(steps.effect)
        except httpx.HTTPError as exc:
            steps.fail(exc)
        else:
            steps.feed(reply)

    async def _perform(self, effect: object) -> Reply | bytes | None:
        match effect:
            case Send(call):
                with ExitStack() as files:
                    request = self._http.build_request(**_arguments(call, self._options, files))
                    return _reply(await self._http.send(_joined(request) if call.files else request))
            case Open(call):
                await self._opened.aclose()
                files = self._opened.enter_context(ExitStack())
                stream = self._http.stream(**_arguments(call, self._options, files))
                response = await self._opened.enter_async_context(stream)
                self._chunks = response.aiter_bytes()
                if response.status_code != 200:
                    await response.aread()
                return _reply(response)
            case Read():
                assert self._chunks is not None
                return await anext(self._chunks, None)
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return None


def _settings(options: ClientOptions) -> dict[str, Any]:
    """What both clients of httpx are made with."""
    return {
        "base_url": options.url,
        "headers": options.headers,
        "timeout": options.timeout(),
        "trust_env": not options.is_local,
        "verify": not options.is_local,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
    }


def _arguments(call: Call, options: ClientOptions, opened: ExitStack) -> dict[str, Any]:
    """What httpx's `request` and `stream` take. Files are opened into `opened`."""
    arguments: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": {name: value for name, value in call.query.items() if value is not None},
        "headers": dict(call.headers),
        "timeout": options.timeout(call.timeout_s),
    }
    if call.files:
        arguments["data"] = dict(call.form)
        arguments["files"] = [
            ("files", (part.name, _content(part.content, opened), part.media_type)) for part in call.files
        ]
    elif call.json is not None:
        arguments["content"] = msgspec.json.encode(call.json)
        arguments["headers"]["content-type"] = "application/json"
    return arguments


def _content(content: bytes | Path, opened: ExitStack) -> Any:
    return opened.enter_context(content.open("rb")) if isinstance(content, Path) else content


def _reply(response: httpx.Response) -> Reply:
    body = response.content if response.is_closed else b""
    return Reply(status=response.status_code, headers=dict(response.headers), body=body)
