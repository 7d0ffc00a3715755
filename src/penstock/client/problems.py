"""From a refusal on the wire (RFC 9457 `application/problem+json`) back to an error of `penstock.errors`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from penstock.client.flow import Reply
from penstock.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    PenstockError,
    ProviderError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from penstock.types import Failure

BY_STATUS: Mapping[int, type[PenstockError]] = {
    400: InvalidInput,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMedia,
    422: InvalidInput,
    429: Overloaded,
    502: ProviderError,
    503: Unavailable,
    504: DeadlineExceeded,
    507: StorageFull,
}
"""For a code that this client does not know, and for proxies that speak of no code at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One of several things that are wrong with a request; `loc` is the way to it: `["body", 3, "report.pdf"]`."""

    loc: Sequence[str | int]
    detail: str
    code: str = InvalidInput.code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    detail: str = ""
    code: str = ""
    request_id: str | None = None
    errors: Sequence[FieldError] = ()


def problem_error(reply: Reply) -> PenstockError:
    """The error that a reply of 4xx or 5xx tells."""
    try:
        problem = msgspec.json.decode(reply.body, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem()
    message = problem.detail or f"The server answered with HTTP {reply.status}."
    if reply.status >= 500 and problem.request_id:
        message += f" (request {problem.request_id})"
    error = error_of(problem.code, message, status=reply.status, retry_after_s=retry_after_s(reply))
    vars(error)["field_errors"] = tuple(problem.errors)
    return error


def field_errors(error: PenstockError) -> Sequence[FieldError]:
    """Every single thing that the server found wrong with the request, as far as it said."""
    found: Sequence[FieldError] = vars(error).get("field_errors", ())
    return found


def failure_error(failure: Failure | None, what: str) -> PenstockError:
    """The error that ended a job."""
    if failure is None:
        return PenstockError(f"{what} failed without a reason.")
    return error_of(failure.code, failure.message)


def error_of(code: str, message: str, *, status: int = 500, retry_after_s: float | None = None) -> PenstockError:
    """The nearest class of the tree: by code, else by status. The code is kept in either case."""
    kind = next((kind for kind in _tree(PenstockError) if kind.code == code), None) or BY_STATUS.get(
        status, PenstockError
    )
    error: PenstockError
    if issubclass(kind, Overloaded) or issubclass(kind, Unavailable):
        error = kind(message, retry_after_s=retry_after_s or 1.0)
    else:
        error = kind(message)
    if code:
        error.code = code
    return error


def retry_after_s(reply: Reply) -> float | None:
    """What `Retry-After` says in seconds; the date form, which no part of Penstock sends, counts as nothing."""
    try:
        return max(0.0, float(reply.headers.get("retry-after", "")))
    except ValueError:
        return None


def _tree(root: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _tree(kind)
