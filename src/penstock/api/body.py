"""How much of a request's body is read, how fast it must come, and what happens to the rest of one that is refused."""

from typing import Final

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.problems import BadBody, http_problem

STALLED_S: Final = 30.0
"""A body that brings no byte for so long is given up: its connection and what was spooled of it are wanted back."""

LINGER_S: Final = 30.0
QUIET_S: Final = 2.0
"""How long the rest of a refused body is thrown away before the connection is closed, and how long it may pause.
Closing at once would reset it, and most clients would see that instead of the answer, since they read only after they
have sent everything. A slow line needs its time for that; nginx gives it as much (`lingering_time`)."""


class BodyLimitMiddleware:
    """413 before the first byte where the declared length says so, else as soon as the limit is passed."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_json_bytes: int, stalled_s: float = STALLED_S) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_json_bytes = max_json_bytes
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        limit = self._max_bytes if is_form else self._max_json_bytes
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            response = await http_problem(Request(scope), _too_large(limit))
            await response(scope, receive, send)
            return
        await self._app(scope, self._limited(receive, limit), send)

    def _limited(self, receive: Receive, limit: int) -> Receive:
        seen = 0
        complete = False

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()
            with anyio.move_on_after(self._stalled_s) as waiting:
                message = await receive()
            if waiting.cancelled_caught:
                raise BadBody(408, f"Nothing more of the body came for {self._stalled_s:g} s.")
            complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return limited


class EarlyReplyMiddleware:
    """Lets a client read an answer that was given before its body was: says that the connection closes, sends the whole
    answer, and throws away what still comes, for a moment.
    """

    def __init__(self, app: ASGIApp, *, linger_s: float = LINGER_S) -> None:
        self._app = app
        self._linger_s = linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        complete = False
        early = False

        async def watched_receive() -> Message:
            nonlocal complete
            message = await receive()
            complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def lingering_send(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start" and not complete:
                early = True
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if not early or message["type"] == "http.response.start" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            await self._throw_away(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, watched_receive, lingering_send)

    async def _throw_away(self, receive: Receive) -> None:
        with anyio.move_on_after(self._linger_s):
            coming = True
            while coming:
                with anyio.move_on_after(QUIET_S) as waiting:
                    message = await receive()
                    coming = message["type"] != "http.disconnect" and message.get("more_body", False)
                coming = coming and not waiting.cancelled_caught
                await anyio.lowlevel.checkpoint()  # bytes that are there already would else never let the time run out


def _too_large(limit: int) -> BadBody:
    return BadBody(413, f"The request's body is larger than {limit:,} bytes. Send less at once, or raise the limit.")


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
