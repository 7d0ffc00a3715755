"""How many requests a key may make: a bucket of tokens for each, refilled all the time (RFC 2697's, with one colour).

Each api process counts for itself, so behind n of them a key has n times as much. What a job costs is not bounded here
but by the queue's limits for each tenant; this keeps one client's loop from taking all of an api process.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.api.auth import Caller
from penstock.api.problems import penstock_problem
from penstock.errors import Overloaded

BURST_S: Final = 10.0
"""As much as may come at once."""
MAX_KEYS: Final = 10_000


class RateLimiter:
    """`clock` is monotonic, in seconds."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_minute / 60
        self._burst = max(1.0, self._per_s * BURST_S)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """0.0 for a request that may go on, which is counted; else the seconds until one may."""
        now = self._clock()
        tokens, filled_at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - filled_at) * self._per_s)
        wait_s = max(0.0, (1 - tokens) / self._per_s)
        self._buckets[key] = (tokens - 1 if wait_s == 0 else tokens), now
        if len(self._buckets) > MAX_KEYS:  # who was silent the longest has a full bucket again, or nearly
            self._buckets.popitem(last=False)
        return wait_s


class RateLimitMiddleware:
    """429 with `Retry-After` for a key, or where there are none a tenant, that asks too often. Comes after the keys."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("penstock.caller")
        if isinstance(caller, Caller) and (wait_s := self._limiter.take(caller.key_id or caller.tenant)):
            text = "This API key asks too often. Wait, or have api.rate_limit_per_minute raised."
            error = Overloaded(text, retry_after_s=wait_s)
            response = await penstock_problem(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)
