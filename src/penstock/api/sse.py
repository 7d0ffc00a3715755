"""Server-sent events: encoding, keep-alives, and knowing when the reader has left."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from penstock.api.context import SERVER_SEND
from penstock.api.json_io import to_bytes

T = TypeVar("T")

KEEP_ALIVE_S: Final = 15.0
"""Below the idle time-outs of common proxies (nginx: 60 s)."""

RETRY_MS: Final = 1000

TURN_EVENTS: Final = 64
"""So many events that are there already go out at once; then others have their turn on the event loop."""


def event(kind: str, data: object, *, event_id: int | None = None) -> bytes:
    """One event on the wire. `data` is one line, since JSON escapes line ends."""
    head = f"event: {kind}\n" if event_id is None else f"id: {event_id}\nevent: {kind}\n"
    return head.encode() + b"data: " + to_bytes(data) + b"\n\n"


class EventStream(Response):
    """Sends what `events` yields as it comes, and a comment now and then when nothing comes.

    At most one event is in memory: a slow reader slows the generator. The generator is closed in either case, when it
    ends and when the client leaves; what it does in its `finally` must be quick.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] | None = None,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        self._events = events
        self._keep_alive_s = keep_alive_s
        self.status_code = 200
        self.background = None
        # nginx would hold events back without the second header
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lock = asyncio.Lock()
        straight: Send = scope.get(SERVER_SEND, send)

        async def write(data: bytes) -> None:
            async with lock:
                await straight({"type": "http.response.body", "body": data, "more_body": True})

        async def keep_alive() -> None:
            while True:
                await anyio.sleep(self._keep_alive_s)
                await write(b": keep-alive\n\n")

        async def pump() -> bool:
            written = 0
            async with aclosing(self._events) as events:
                async for data in events:
                    await write(data)
                    written += 1
                    if written % TURN_EVENTS == 0:
                        await anyio.lowlevel.checkpoint()
            return True

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await write(f"retry: {RETRY_MS}\n\n".encode())
        if await unless_gone(receive, pump, beside=keep_alive):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def gone(receive: Receive) -> None:
    """Returns when the client has left. The request's body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(
    receive: Receive, step: Callable[[], Awaitable[T]], *, beside: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> T | None:
    """What `step` returns or raises; None when the client left first, and `step` was cancelled.

    `beside` runs as long as `step` does.
    """
    result: T | None = None
    error: Exception | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await gone(receive)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        if beside is not None:
            group.start_soon(beside)
        try:
            result = await step()
        except Exception as exc:  # raised again outside, where the task group does not wrap it
            error = exc
        group.cancel_scope.cancel()
    if error is not None:
        raise error
    return result
