"""One request as a flow: sent, tried again where that may help, and decoded."""

import random
from http import HTTPStatus
from typing import TypeVar

import httpx
import msgspec

from penstock.client.flow import Call, Flow, Open, Pause, Reply, Send
from penstock.client.options import ClientOptions
from penstock.client.problems import problem_error, retry_after_s
from penstock.errors import PenstockError, ProviderError, Unavailable

T = TypeVar("T")

UNREACHABLE = "unreachable"
"""The code of an `Unavailable` that says: nobody answers at this URL."""

REFUSED_FOR_NOW = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def request(options: ClientOptions, call: Call, result_type: type[T]) -> Flow[T]:
    """The reply's body as a record. Raises what the server says, `Unavailable` when it says nothing."""
    reply = yield from exchange(options, call)
    return decode(reply, result_type)


def exchange(options: ClientOptions, call: Call, *, stream: bool = False) -> Flow[Reply]:
    """A reply below 400 (or among `call.also`), with the retries that `options` allow.

    `stream` leaves the body of a 200 open for `Read`.
    """
    pause_s = options.first_pause_s
    broken = refused = 0
    while True:
        wait_s = 0.0
        try:
            reply: Reply = yield (Open(call) if stream else Send(call))
            if reply.status < 400 or reply.status in call.also:
                return reply
            error: PenstockError = problem_error(reply)
            refused += 1
            wait_s = retry_after_s(reply) or 0.0
            for_now = reply.status in REFUSED_FOR_NOW and reply.headers.get("x-should-retry") != "false"
            again = for_now and refused < options.refused_attempts and wait_s <= options.max_pause_s
        except httpx.TransportError as exc:
            error = transport_error(exc, options)
            error.__cause__ = exc
            broken += 1
            again = (call.repeatable or isinstance(exc, NEVER_SENT)) and broken < options.attempts
        if not again:
            raise error
        # the full jitter spreads those who were refused together
        yield Pause(wait_s + random.uniform(0, pause_s))  # noqa: S311 - not a secret
        pause_s = min(2 * pause_s, options.max_pause_s)


def decode(reply: Reply, result_type: type[T]) -> T:
    """Fields that this client does not know yet are ignored."""
    try:
        return msgspec.json.decode(reply.body, type=result_type)
    except msgspec.DecodeError as exc:
        raise ProviderError(
            f"The server's answer is not what this client understands ({exc}). Is the URL that of a Penstock server of "
            "the same version?",
            code="bad_reply",
        ) from exc


def transport_error(exc: httpx.TransportError, options: ClientOptions) -> PenstockError:
    why = str(exc) or type(exc).__name__
    if isinstance(exc, NEVER_SENT):
        return Unavailable(
            f"No Penstock server answers at {options.url} ({why}). Start one with `penstock serve`, or give the URL of "
            "another in PENSTOCK_URL.",
            code=UNREACHABLE,
        )
    return Unavailable(
        f"The connection to {options.url} broke ({why}). Whether the server did what was asked is not known; look "
        "before you ask again."
    )
