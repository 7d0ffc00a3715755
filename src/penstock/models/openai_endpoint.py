"""One model at one provider: calls within its limit, with time-outs by phase and bounded retries."""

import asyncio
import contextlib
import itertools
import random
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from penstock.errors import ProviderError
from penstock.models import generator_metrics as metrics
from penstock.models.generator import Delta
from penstock.models.generator_options import EndpointOptions, GeneratorOptions
from penstock.models.openai_breaker import Breaker
from penstock.models.openai_errors import Failure, not_a_stream, refusal, without_secret
from penstock.models.openai_http import BrokenReply, ConnectFailed, Reply, Upstream
from penstock.models.openai_limit import AdaptiveLimit
from penstock.models.openai_stream import ReplyParser
from penstock.types import Usage

_TAIL_S = 2.0
"""After the finish reason only token counts are to come: not worth a longer wait."""

_FIRST_CALLS = 128
"""As many at once before the provider has let any of them in."""

_CLOSE_S = 0.2
_ERROR_BYTES = 64 * 1024


class Endpoint:
    """Streams chat completions. `random_source` steers the jitter."""

    def __init__(
        self,
        endpoint: EndpointOptions,
        options: GeneratorOptions,
        *,
        random_source: random.Random | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._random = random_source or random.Random()  # noqa: S311 - jitter
        self._upstream = Upstream(endpoint.base_url, connect_s=options.connect_s, tls=tls)
        self._limit = AdaptiveLimit(endpoint.max_concurrency, start=_FIRST_CALLS)
        self._breaker = Breaker(failures=options.breaker_failures, cooldown_s=options.breaker_cooldown_s)
        self._secret = endpoint.api_key.get_secret_value()
        self._who = f"The model provider {self._upstream.name} ({endpoint.model})"
        self._labels = (self._upstream.name, endpoint.model)
        metrics.LIMIT.labels(*self._labels).set_function(lambda: self._limit.limit)
        metrics.IN_FLIGHT.labels(*self._labels).set_function(lambda: self._limit.in_flight)
        metrics.BREAKER.labels(*self._labels).set_function(lambda: self._breaker.open)

    @property
    def options(self) -> EndpointOptions:
        return self._endpoint

    async def close(self) -> None:
        await self._upstream.close()

    async def stream(self, body: bytes, *, deadline: float) -> AsyncGenerator[Delta, None]:
        """The reply to an encoded request; `deadline` is in the event loop's time.

        Asks again only before the first word, at most `max_retries` times, not sooner than the provider wants.
        Raises `Failure` that names the provider.
        """
        for attempt in itertools.count():
            begun = False
            try:
                async with aclosing(self._call(body, deadline)) as deltas:
                    async for delta in deltas:
                        begun = begun or bool(delta.text)
                        yield delta
            except Failure as exc:
                pause_s = exc.pause_s(
                    attempt,
                    backoff_s=self._options.backoff_s,
                    longest_wish_s=self._options.max_retry_after_s,
                    source=self._random,
                )
                hopeless = begun or not exc.again or attempt >= self._options.max_retries
                if hopeless or pause_s is None or _now() + pause_s >= deadline:
                    raise
            else:
                return
            metrics.RETRIES.labels(*self._labels).inc()
            await asyncio.sleep(pause_s)

    async def _call(self, body: bytes, deadline: float) -> AsyncGenerator[Delta, None]:
        """One call in its turn; limit, breaker and metrics hear how it goes."""
        cuts = await self._turn(deadline)
        started = time.perf_counter()
        outcome = "abandoned"
        try:
            async with aclosing(self._exchange(body, deadline)) as deltas:
                async for delta in deltas:
                    if delta.text and outcome == "abandoned":
                        outcome = "broken_off"
                        self._breaker.began()
                        metrics.FIRST_TOKEN.labels(*self._labels).observe(time.perf_counter() - started)
                    if delta.finish:
                        outcome = "ok"
                        self._succeeded(delta.usage, time.perf_counter() - started)
                    yield delta
        except Failure as exc:
            outcome = exc.code
            self._failed(exc, cuts)
            raise
        finally:
            self._limit.release()
            if outcome in {"abandoned", "broken_off"}:
                self._breaker.abandoned()
            metrics.CALLS.labels(*self._labels, outcome).inc()

    async def _turn(self, deadline: float) -> int:
        """Waits for a slot, unless the breaker is open."""
        try:
            async with asyncio.timeout_at(deadline):
                cuts = await self._limit.acquire()
        except TimeoutError as exc:
            text = f"{self._who} is busy: no turn within {self._options.total_s:g} s."
            raise Failure(text, code="provider_timeout", again=False, sick=False) from exc
        if not self._breaker.admit():
            self._limit.release()
            text = f"{self._who} has failed too often lately and is left alone for a while."
            raise Failure(text, code="provider_unavailable", again=False, sick=False)
        return cuts

    def _succeeded(self, usage: Usage | None, elapsed_s: float) -> None:
        self._limit.served()
        self._breaker.succeeded()
        metrics.DURATION.labels(*self._labels).observe(elapsed_s)
        if usage:
            metrics.TOKENS.labels(*self._labels, "prompt").inc(usage.prompt_tokens)
            metrics.TOKENS.labels(*self._labels, "completion").inc(usage.completion_tokens)
            prices = self._endpoint.prompt_price, self._endpoint.completion_price
            cost = usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]
            metrics.COST.labels(*self._labels).inc(cost / 1e6)

    def _failed(self, failure: Failure, cuts: int) -> None:
        if failure.code == "provider_rate_limited":
            self._limit.refused(cuts, min(failure.retry_after_s or 0.0, self._options.max_retry_after_s))
        if failure.sick:
            self._breaker.failed()
        else:
            self._breaker.abandoned()

    async def _exchange(self, body: bytes, deadline: float) -> AsyncGenerator[Delta, None]:
        """Request and reply over HTTP, every trouble of it a `Failure`."""
        first_by = min(deadline, _now() + self._options.first_token_s)
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout_at(first_by):
                    post = self._upstream.post("/chat/completions", body, self._headers())
                    reply = await stack.enter_async_context(post)
                    await self._check(reply)
                self._limit.let_in()
                async with aclosing(self._read(reply, first_by, deadline)) as deltas:
                    async for delta in deltas:
                        yield delta
        except ConnectFailed as exc:
            raise Failure(f"{self._who} cannot be reached: {exc}.", code="provider_unreachable") from exc
        except BrokenReply as exc:
            raise Failure(f"{self._who} did not answer: {exc}.") from exc
        except TimeoutError as exc:
            raise self._late(begun=False, over=first_by >= deadline) from exc

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._secret}"} if self._secret else {}

    async def _check(self, reply: Reply) -> None:
        """Raises what a reply means that is not a stream."""
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if reply.status == 200 and media_type not in {"application/json", "text/html"}:
            return
        body = b""
        with contextlib.suppress(BrokenReply):
            while len(body) < _ERROR_BYTES and (piece := await reply.read()):
                body += piece
        if reply.status == 200:
            raise not_a_stream(self._who, media_type, body, self._secret)
        section = self._options.section
        raise refusal(self._who, reply.status, reply.headers, body, self._secret, section=section)

    async def _read(self, reply: Reply, first_by: float, deadline: float) -> AsyncGenerator[Delta, None]:
        """The deltas, as long as they come in time. Only words and thoughts count as a sign of life."""
        parser = ReplyParser(max_line_bytes=self._options.max_line_bytes, max_bytes=self._options.max_reply_bytes)
        by = first_by
        try:
            while not parser.done and (piece := await self._piece(reply, parser, by, deadline)) is not None:
                if (delta := _joined(parser.feed(piece))) is not None:
                    yield delta
                    by = min(deadline, _now() + self._options.idle_s)
                if parser.finished:
                    by = min(by, _now() + _TAIL_S)
            yield parser.end()
        except ProviderError as exc:
            if isinstance(exc, Failure):
                raise
            text = f"{self._who} sent {without_secret(exc.message, self._secret)}."
            raise Failure(text, code=exc.code, retryable=exc.retryable) from exc
        await self._finish(reply)

    async def _piece(self, reply: Reply, parser: ReplyParser, by: float, deadline: float) -> bytes | None:
        """The next piece of the body; None where it fails to come and is not needed any more."""
        try:
            return await reply.read(by=by)
        except TimeoutError as exc:
            failure: Failure = self._late(begun=parser.begun, over=by >= deadline)
            cause: Exception = exc
        except BrokenReply as exc:
            text = f"{self._who} broke off in the middle of its reply: {exc}."
            failure, cause = Failure(text, code="stream_truncated"), exc
        if parser.finished:
            return None
        raise failure from cause

    async def _finish(self, reply: Reply) -> None:
        """Reads the end of the body's framing, without which the connection could not be used again."""
        with contextlib.suppress(TimeoutError, BrokenReply):
            by = _now() + _CLOSE_S
            while await reply.read(by=by):
                pass

    def _late(self, *, begun: bool, over: bool) -> Failure:
        if over:
            text = f"did not finish within {self._options.total_s:g} s"
        elif begun:
            text = f"fell silent for {self._options.idle_s:g} s in the middle of its reply"
        else:
            text = f"did not say a word within {self._options.first_token_s:g} s"
        return Failure(f"{self._who} {text}.", code="provider_timeout", again=False)


def _joined(deltas: Sequence[Delta]) -> Delta | None:
    """What came together goes on together."""
    if len(deltas) < 2:
        return deltas[0] if deltas else None
    return Delta(text="".join(delta.text for delta in deltas), model=deltas[-1].model)


def _now() -> float:
    return asyncio.get_running_loop().time()
