"""One JSON API at one provider: calls within its limit, with time-outs, bounded retries and a breaker.

What embeddings and reranking have in common. Both may be asked again: they change nothing at the provider.
"""

import asyncio
import itertools
import random
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from penstock.errors import InvalidInput
from penstock.models.metrics import ModelMetrics
from penstock.models.openai_breaker import Breaker
from penstock.models.openai_errors import Failure, refusal
from penstock.models.openai_http import BrokenReply, ConnectFailed, Reply, Upstream
from penstock.models.openai_limit import AdaptiveLimit
from penstock.models.options import RemoteOptions
from penstock.types import JSON

T = TypeVar("T")

_ERROR_BYTES = 64 * 1024
_HINTS = {
    400: "Check the model's name and its options.",
    401: "Check its `api_key`.",
    403: "Check what the API key may do.",
    404: "Check the base URL and the model's name.",
}


class RemoteCall:
    """`POST {base_url}{path}` for one model. `random_source` steers the jitter."""

    def __init__(
        self,
        path: str,
        options: RemoteOptions,
        *,
        metrics: ModelMetrics,
        random_source: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._path = path
        self._options = options
        self._metrics = metrics
        self._random = random_source or random.Random()  # noqa: S311 - jitter
        self._upstream = Upstream(options.base_url, connect_s=options.connect_s, tls=tls)
        self._limit = AdaptiveLimit(options.max_concurrency)
        self._breaker = Breaker(failures=options.breaker_failures, cooldown_s=options.breaker_cooldown_s)
        self._secret = options.api_key.get_secret_value()
        self._headers = {"authorization": f"Bearer {self._secret}"} if self._secret else {}
        self._labels = (self._upstream.name, options.model)
        self.who = f"The model provider {self._upstream.name} ({options.model})"

    @property
    def in_flight(self) -> int:
        """Calls that hold a slot now."""
        return self._limit.in_flight

    async def close(self) -> None:
        await self._upstream.close()

    async def post(self, request: JSON, parse: Callable[[bytes], T], *, urgent: bool) -> T:
        """What `parse` makes of the reply; an urgent call goes before all that wait for a slot.

        `parse` raises `Failure` for a reply that must not be used: it is asked for again like any other failed call.
        Raises `Failure` that names the provider, and never the key. A cancelled call closes its connection at once.
        """
        try:
            body = msgspec.json.encode(request)
        except UnicodeEncodeError as exc:
            raise InvalidInput("A text is not valid Unicode: it holds half of a surrogate pair.") from exc
        deadline = _now() + self._options.total_s
        for attempt in itertools.count():
            try:
                return await self._turn(body, parse, urgent=urgent, deadline=deadline)
            except Failure as exc:
                pause_s = exc.pause_s(
                    attempt,
                    backoff_s=self._options.backoff_s,
                    longest_wish_s=self._options.max_retry_after_s,
                    source=self._random,
                )
                hopeless = not exc.again or attempt >= self._options.max_retries
                if hopeless or pause_s is None or _now() + pause_s >= deadline:
                    raise
            self._metrics.remote_retries.labels(*self._labels).inc()
            await asyncio.sleep(pause_s)
        raise AssertionError("the loop has no end")

    async def _turn(self, body: bytes, parse: Callable[[bytes], T], *, urgent: bool, deadline: float) -> T:
        """One call in its turn; limit, breaker and metrics hear how it goes."""
        cuts = await self._wait(urgent=urgent, deadline=deadline)
        outcome, began = "abandoned", time.perf_counter()
        try:
            result = parse(await self._exchange(body, deadline))
            outcome = "ok"
        except Failure as exc:
            outcome = exc.code
            self._failed(exc, cuts)
            raise
        finally:
            self._limit.release()
            if outcome == "abandoned":
                self._breaker.abandoned()
            self._metrics.remote_calls.labels(*self._labels, outcome).inc()
        self._limit.served()
        self._breaker.succeeded()
        self._metrics.remote_seconds.labels(*self._labels).observe(time.perf_counter() - began)
        return result

    async def _wait(self, *, urgent: bool, deadline: float) -> int:
        try:
            async with asyncio.timeout_at(deadline):
                cuts = await self._limit.acquire(urgent=urgent)
        except TimeoutError as exc:
            text = f"{self.who} is busy: no turn within {self._options.total_s:g} s."
            raise Failure(text, code="provider_timeout", again=False, sick=False) from exc
        if not self._breaker.admit():
            self._limit.release()
            text = f"{self.who} has failed too often lately and is left alone for a while."
            raise Failure(text, code="provider_unavailable", again=False, sick=False)
        return cuts

    def _failed(self, failure: Failure, cuts: int) -> None:
        if failure.code == "provider_rate_limited":
            self._limit.refused(cuts, min(failure.retry_after_s or 0.0, self._options.max_retry_after_s))
        if failure.sick:
            self._breaker.failed()
        else:
            self._breaker.abandoned()

    async def _exchange(self, body: bytes, deadline: float) -> bytes:
        """The whole reply to one request, every trouble on the way a `Failure`."""
        try:
            async with (
                asyncio.timeout_at(min(deadline, _now() + self._options.timeout_s)),
                self._upstream.post(self._path, body, self._headers) as reply,
            ):
                if reply.status != 200:
                    said = await self._read(reply, _ERROR_BYTES)
                    raise refusal(self.who, reply.status, reply.headers, said, self._secret, hints=_HINTS)
                return await self._read(reply, self._options.max_reply_bytes)
        except ConnectFailed as exc:
            raise Failure(f"{self.who} cannot be reached: {exc}.", code="provider_unreachable") from exc
        except BrokenReply as exc:
            raise Failure(f"{self.who} did not answer: {exc}.") from exc
        except TimeoutError as exc:
            text = f"{self.who} did not answer within {self._options.timeout_s:g} s."
            raise Failure(text, code="provider_timeout") from exc

    async def _read(self, reply: Reply, most: int) -> bytes:
        pieces, size = [], 0
        while piece := await reply.read():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise self.bad_reply(f"more than {most} bytes")
        return b"".join(pieces)

    def bad_reply(self, what: str, *, again: bool = True) -> Failure:
        """The failure of a reply that came and must not be used."""
        return Failure(f"{self.who} sent {what}.", code="bad_reply", again=again)


def _now() -> float:
    return asyncio.get_running_loop().time()
