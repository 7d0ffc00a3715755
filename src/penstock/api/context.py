"""The outermost layer of a request: its id, its numbers, and the answer when something failed unforeseen."""

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.metrics import ApiMetrics
from penstock.api.problems import CLIENT_GONE, problem_response, unforeseen_problem
from penstock.api.protocol import MAX_HEAD_BYTES

logger = logging.getLogger(__name__)

_GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
MAX_HEADERS: Final = 128
HEAD_TOO_LARGE: Final = "head_too_large"
SERVER_SEND: Final = "penstock.send"
"""Where a request's scope has the server's own `send`: what is streamed need not go through every layer for each piece,
once the response has begun, which all of them must see."""
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ContextMiddleware:
    """Every answer carries `X-Request-Id` (the client's own, if it sent a sane one) and must not be sniffed."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["penstock.request_id"] = request_id
        scope[SERVER_SEND] = send
        status = 0

        async def marked_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marks = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        started = time.perf_counter()
        self._metrics.in_progress.inc()
        try:
            if _head_too_large(scope):
                await _refuse_head(scope, receive, marked_send)
                return
            await self._app(scope, receive, marked_send)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            logger.exception("Request %s failed unforeseen", request_id)
            if status:  # too late for another answer: let the server close the connection
                raise
            await unforeseen_problem(Request(scope))(scope, receive, marked_send)
        finally:
            self._metrics.in_progress.dec()
            self._count(scope, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """By route template, never by path: ids would make the number of series unbounded."""
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)


def _head_too_large(scope: Scope) -> bool:
    headers = scope["headers"]
    return len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES


async def _refuse_head(scope: Scope, receive: Receive, send: Send) -> None:
    detail = f"A request may have {MAX_HEADERS} headers of {MAX_HEAD_BYTES:,} bytes together."
    response = problem_response(
        431, detail, code=HEAD_TOO_LARGE, request=Request(scope), headers={"connection": "close"}
    )
    await response(scope, receive, send)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
