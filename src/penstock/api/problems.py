"""Every refusal has one shape: RFC 9457 `application/problem+json`, and one table says which status an error gets.

Nothing that a caller sent is echoed beyond what its own library put into a message, and nothing of our insides is
told: an error that we did not foresee is a 500 with the request id to look for in the log.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.json_io import to_bytes
from penstock.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    ParseError,
    PenstockError,
    ProviderError,
    StorageFull,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from penstock.types import Failure

logger = logging.getLogger(__name__)

STATUS: Mapping[type[PenstockError], int] = {
    InvalidInput: 422,
    TooLarge: 413,
    UnsupportedMedia: 415,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Overloaded: 429,
    Unavailable: 503,
    StorageFull: 507,
    ProviderError: 502,
    DeadlineExceeded: 504,
    ParseError: 422,
}
"""The nearest class counts; what is not here is a 500."""

CODE_STATUS: Mapping[str, int] = {error.code: status for error, status in STATUS.items()} | {
    "storage_error": 503,
    "index_unavailable": 503,
    "worker_died": 503,
    "lost": 503,
    "time_limit": 504,
    "provider_timeout": 502,
    "provider_unavailable": 502,
    "provider_unreachable": 502,
    "bad_reply": 502,
    "stream_truncated": 502,
    "content_filtered": 502,
    "no_vision": 502,
    "fetch_failed": 422,
    "bad_image": 422,
    "animated_image": 422,
    "image_too_large": 413,
    "memory_limit": 422,
    "parser_crashed": 422,
}
"""The same by code, for the failures of jobs, which travel as records and have lost their class."""

STATUS_CODE: Mapping[int, str] = {status: error.code for error, status in reversed(list(STATUS.items()))} | {
    400: "malformed",
    405: "method_not_allowed",
    408: "too_slow",
    422: InvalidInput.code,
    500: PenstockError.code,
}
"""What a status of the web framework is called by us."""

UNROUTED: Mapping[int, str] = {
    404: "There is nothing at this path. `/openapi.json` lists what there is.",
    405: "This path does not take this method. The `Allow` header says which it takes.",
}

CLIENT_GONE = 499
"""nginx's status for a client that left; nobody reads it but our metrics."""

MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int] = Field(description="Where: `body`, `query`, `path` or `header`, then the way to the field.")
    detail: str
    code: str = "invalid_input"


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:penstock:error:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What happened, why, and what to do about it.")
    code: str = Field(description="Stable, for machines.", examples=["not_found"])
    request_id: str | None = Field(None, description="What to look for in the server's log.")
    errors: list[FieldError] | None = Field(None, description="Every field that is wrong, where there is more to say.")


class BadBody(HTTPException):
    """A body that cannot be read. The web framework hands on its own exceptions unchanged, and only these."""

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(status_code, detail)


class InvalidFields(InvalidInput):
    """Several things are wrong at once: each is named. The status is that of `status`."""

    def __init__(self, message: str, errors: Sequence[FieldError], *, code: str, status: int) -> None:
        super().__init__(message, code=code)
        self.errors = errors
        self.status = status


def problem_response(
    status: int,
    detail: str,
    *,
    code: str,
    request: Request,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": f"urn:penstock:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if request_id := request.scope.get("penstock.request_id"):
        body["request_id"] = request_id
    if errors:
        body["errors"] = [error.model_dump() for error in errors]
    return Response(to_bytes(body), status, headers, media_type=MEDIA_TYPE)


async def penstock_problem(request: Request, exc: Exception) -> Response:
    """The answer to an error of our own tree."""
    assert isinstance(exc, PenstockError)
    status = status_of(exc)
    if status == 500:
        logger.error("Request %s failed", request.scope.get("penstock.request_id"), exc_info=exc)
    return problem_response(
        status,
        exc.message if status != 500 else _unforeseen(request),
        code=exc.code,
        request=request,
        headers=_headers(exc),
        errors=exc.errors if isinstance(exc, InvalidFields) else None,
    )


async def http_problem(request: Request, exc: Exception) -> Response:
    """The answer to what the web framework itself refuses: no such route, another method, a broken body."""
    assert isinstance(exc, HTTPException)
    status = exc.status_code
    code = STATUS_CODE.get(status, "http_error")
    headers = dict(exc.headers) if exc.headers else None
    detail = UNROUTED.get(status, exc.detail) if not isinstance(exc, BadBody) else exc.detail
    return problem_response(status, detail, code=code, request=request, headers=headers)


_OWN = "Value error, "
"""What pydantic sets before the words of our own checks."""


async def validation_problem(request: Request, exc: Exception) -> Response:
    """The answer to fields that do not fit the documented schema; a body that is no JSON at all is a 400."""
    assert isinstance(exc, RequestValidationError)
    errors = [FieldError(loc=list(error["loc"]), detail=error["msg"].removeprefix(_OWN)) for error in exc.errors()[:20]]
    first = errors[0]
    where = ".".join(map(str, first.loc))
    detail = f"{where}: {first.detail}" + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
    return problem_response(422, detail, code=InvalidInput.code, request=request, errors=errors)


def unforeseen_problem(request: Request) -> Response:
    return problem_response(500, _unforeseen(request), code=PenstockError.code, request=request)


def failure_problem(request: Request, failure: Failure) -> Response:
    """The answer to a call that waited for a job which failed."""
    status = CODE_STATUS.get(failure.code, 500)
    headers = {"retry-after": "1"} if status in {429, 503, 507} else None
    return problem_response(status, failure.message, code=failure.code, request=request, headers=headers)


def status_of(exc: PenstockError) -> int:
    if isinstance(exc, InvalidFields):
        return exc.status
    if exc.code == "malformed":
        return 400
    return next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 500)


def _headers(exc: PenstockError) -> dict[str, str] | None:
    match exc:
        case Overloaded() | Unavailable():
            return {"retry-after": str(max(1, math.ceil(exc.retry_after_s)))}
        case Conflict():
            return {"x-should-retry": "false"}
        case Unauthorized():
            return {"www-authenticate": "Bearer"}
        case _:
            return None


def _unforeseen(request: Request) -> str:
    request_id = request.scope.get("penstock.request_id", "?")
    return f"The server failed in a way that was not foreseen. Its log has the reason under request {request_id}."
