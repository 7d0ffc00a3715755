"""Routes whose JSON bodies are read strictly, and the refusals that every route documents."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from penstock.api.json_io import strict_json
from penstock.api.problems import MEDIA_TYPE, BadBody, Problem, status_of
from penstock.errors import InvalidInput, UnsupportedMedia
from penstock.types import JSON

M = TypeVar("M", bound=BaseModel)

Responses: TypeAlias = dict[int | str, dict[str, Any]]

JSON_TYPES = ("application/json", "text/json")


class StrictRequest(Request):
    """A request whose `json` is `strict_json`."""

    async def json(self) -> JSON:
        try:
            return strict_json(await self.body())
        except InvalidInput as exc:
            raise BadBody(status_of(exc), exc.message) from exc


class StrictRoute(APIRoute):
    """A route that reads its body as JSON and nothing else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_json = self.body_field is not None

        async def strict(request: Request) -> Response:
            if takes_json:
                require_json(request)
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def require_json(request: Request) -> None:
    """Raises `UnsupportedMedia` unless the body says that it is JSON. (A form of a foreign page cannot say so.)"""
    declared = media_type_of(request)
    if declared not in JSON_TYPES and not (declared.startswith("application/") and declared.endswith("+json")):
        raise UnsupportedMedia(f"The Content-Type must be application/json, not {declared[:80]!r}.")


def validated(model: type[M], value: JSON) -> M:
    """A body that is read by hand, checked like those that are not."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        errors = exc.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in errors]) from exc


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def refusals(*statuses: int) -> Responses:
    """The documentation of a route's refusals: those of every route, and its own."""
    everywhere = {401, 403, 422, 429, 500, 503}
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {status: {"content": content} for status in sorted(everywhere | set(statuses))}


EVENTS = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
        }
    }
}
"""The documentation of an event stream; `data` is JSON."""

BODY = (400, 408, 413, 415)
"""What a route with a body may refuse besides."""
