"""What can go wrong at a provider, told in one way: who, what, whether to ask again, and never the key."""

import email.utils
import random
import time
from collections.abc import Mapping

import msgspec

from penstock.errors import ProviderError
from penstock.models.openai_stream import error_text

_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_HINTS = {
    400: "Check the model's name and `extra_body`.",
    401: "Check the API key (`PENSTOCK_{section}__API_KEY`).",
    403: "Check what the API key may do.",
    404: "Check the base URL and the model's name.",
}


class Failure(ProviderError):
    """One failed call. `again`: the same endpoint may be asked again now; `sick`: it tells of the endpoint's health."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "provider_error",
        retryable: bool = True,
        again: bool = True,
        sick: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retryable=retryable)
        self.again = again and retryable
        self.sick = sick
        self.retry_after_s = retry_after_s

    def pause_s(self, attempt: int, *, backoff_s: float, longest_wish_s: float, source: random.Random) -> float | None:
        """How long to wait after the failed try number `attempt` (from 0): full jitter (M. Brooker, "Exponential
        Backoff And Jitter", 2015), after what the provider asks for; None when it asks for too much."""
        jitter = source.uniform(0, backoff_s * 2**attempt)
        wanted = self.retry_after_s or 0.0
        return None if wanted > longest_wish_s else wanted + jitter


def refusal(
    who: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    section: str = "generator",
    hints: Mapping[int, str] = _HINTS,
) -> Failure:
    """The failure that an HTTP error status means; `section` is that of the model's settings.

    `body` may quote the key: it is taken out, and what is said about the key is not quoted at all.
    """
    said = "" if status in {401, 403} else _quoted(body, secret)
    message = " ".join(
        filter(
            None, [f"{who} answered with status {status}{said}.", hints.get(status, "").format(section=section.upper())]
        )
    )
    retryable = status in _RETRYABLE
    code = "provider_rate_limited" if status == 429 else "provider_error" if retryable else "provider_refused"
    return Failure(
        message,
        code=code,
        retryable=retryable,
        sick=retryable and status != 429,
        retry_after_s=retry_after(headers),
    )


def not_a_stream(who: str, media_type: str, body: bytes, secret: str) -> Failure:
    """A reply with status 200 that is no stream of events: an error in JSON, or the page of some proxy."""
    said = _quoted(body, secret)
    return Failure(f"{who} answered with {media_type or 'something'} instead of a stream{said}.", code="bad_reply")


def without_secret(text: str, secret: str) -> str:
    return text.replace(secret, "[key]") if secret else text


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds of a `Retry-After` header (RFC 9110 §10.2.3), or of `retry-after-ms`; None where there is none."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "").strip()
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    return max(0.0, at - (time.time() if now is None else now))


def _quoted(body: bytes, secret: str) -> str:
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    error = parsed.get("error", parsed.get("message")) if isinstance(parsed, dict) else None
    if error is None:
        return ""
    return f': "{without_secret(error_text(error), secret)}"'
