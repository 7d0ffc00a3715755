"""The outermost layer of a request: its id, its numbers, and the answer when something failed unforeseen."""

import logging
import re
import secrets
import time
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.api.metrics import ApiMetrics
from penstock.api.problems import unforeseen_problem

logger = logging.getLogger(__name__)

_GIVEN_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
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
            await self._app(scope, receive, marked_send)
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


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
