"""A question, or a search, as it comes in: JSON, or a form with an image; checked, and its image stored."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from starlette.requests import Request

from penstock.api.forms import FormReader
from penstock.api.images import put_image, store_image, store_image_file
from penstock.api.json_io import strict_json
from penstock.api.problems import BadBody, status_of
from penstock.api.routing import media_type_of, require_json, validated
from penstock.api.schemas import QuestionBody, SearchBody, WithImage
from penstock.api.spool import Spool
from penstock.api.state import ApiState
from penstock.errors import InvalidInput, TooLarge
from penstock.pipeline.intake import open_collection

_TEXTS: Final = frozenset({"question", "query", "mode", "collection", "image", "image_path"})
"""Fields of a form that are text as they stand; the others are JSON."""

_TEXT: Final = {"type": "string"}
_COMMON: Final = {
    "image": {"type": "string", "format": "binary"},
    "collection": {**_TEXT, "default": "default"},
    "filter": {**_TEXT, "description": "JSON"},
    "timeout_s": {"type": "number"},
}


def _request_body(model: type[WithImage], form: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": {**form, **_COMMON}}
    content = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}},
        "multipart/form-data": {"schema": schema},
    }
    return {"requestBody": {"required": True, "content": content}}


REQUEST_BODY: Final = _request_body(
    QuestionBody,
    {
        "question": _TEXT,
        "limit": {"type": "integer", "minimum": 1, "maximum": 50},
        "stream": {"type": "boolean"},
        "wait_s": {"type": "number"},
    },
    ["question"],
)
SEARCH_BODY: Final = _request_body(
    SearchBody, {"query": _TEXT, "limit": {"type": "integer", "minimum": 1, "maximum": 100}}, ["image"]
)

B = TypeVar("B", QuestionBody, SearchBody)


async def read_question(request: Request, state: ApiState, tenant: str) -> tuple[QuestionBody, str | None]:
    """The question, and the SHA-256 of its image. Nothing is stored or fetched for one that is refused."""
    return await _read(QuestionBody, request, state, tenant)


async def read_search(request: Request, state: ApiState, tenant: str) -> tuple[SearchBody, str | None]:
    """The same for a search: `InvalidInput` for an image where the collection has no image model."""
    return await _read(SearchBody, request, state, tenant)


async def _read(model: type[B], request: Request, state: ApiState, tenant: str) -> tuple[B, str | None]:
    if media_type_of(request) == "multipart/form-data":
        return await _read_form(model, request, state, tenant)
    require_json(request)
    body = validated(model, _json(await request.body()))
    await _check(body, state, tenant)
    return body, await _store(body, state)


async def _read_form(model: type[B], request: Request, state: ApiState, tenant: str) -> tuple[B, str | None]:
    most = state.services.settings.images.max_bytes
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        reader = FormReader(request.headers["content-type"], spool, max_files=1, max_file_bytes=most)
        form = await reader.read(request.stream())
        body = validated(model, _form_values(form.fields))
        if form.files and (form.files[0].field_name != "image" or body.image or body.image_path):
            raise InvalidInput("The form holds one image: in the field 'image', or as 'image_path'.")
        await _check(body, state, tenant, image=bool(form.files))
        if form.files:
            return body, await put_image(state, await spool.read(form.files[0].start, form.files[0].size_bytes))
    return body, await _store(body, state)


async def _store(body: WithImage, state: ApiState) -> str | None:
    if body.image is not None:
        return await store_image(state, body.image)
    if body.image_path is not None:
        return await store_image_file(state, body.image_path)
    return None


def _form_values(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: value if name in _TEXTS else _json(value.encode()) for name, value in fields.items()}


async def _check(body: QuestionBody | SearchBody, state: ApiState, tenant: str, *, image: bool = False) -> None:
    most = state.services.settings.api.max_question_chars
    what, text = ("question", body.question) if isinstance(body, QuestionBody) else ("query", body.query or "")
    if len(text) > most:
        raise TooLarge(f"The {what} has {len(text):,} characters; at most {most:,} are taken.")
    await state.require_collection(tenant, body.collection)
    if isinstance(body, SearchBody):
        await _check_search(body, state, tenant, image=image or body.image is not None or body.image_path is not None)


async def _check_search(body: SearchBody, state: ApiState, tenant: str, *, image: bool) -> None:
    if not image:
        if body.query is None:
            raise InvalidInput("A search has a query, or an image, or both.")
        return
    if body.mode != "fused":
        raise InvalidInput("With an image the mode of a search is 'fused'.")
    options = (await open_collection(state.services.ledger, tenant, body.collection)).options
    if options.image_model is None:
        raise InvalidInput(
            f"The collection {body.collection!r} has no image model: its pictures cannot be searched. Copy it into "
            "one that has (image_model)."
        )


def _json(text: bytes) -> Any:
    try:
        return strict_json(text)
    except InvalidInput as exc:
        raise BadBody(status_of(exc), exc.message) from exc
