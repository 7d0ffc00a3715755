"""A question as it comes in: JSON, or a form with an image; checked, and its image stored."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from penstock.api.forms import FormReader
from penstock.api.images import put_image, store_image, store_image_file
from penstock.api.json_io import strict_json
from penstock.api.problems import BadBody, status_of
from penstock.api.routing import media_type_of, require_json, validated
from penstock.api.schemas import QuestionBody
from penstock.api.spool import Spool
from penstock.api.state import ApiState
from penstock.errors import InvalidInput, TooLarge

_TEXTS: Final = frozenset({"question", "collection", "image", "image_path"})
"""Fields of a form that are text as they stand; the others are JSON."""

_TEXT: Final = {"type": "string"}
FORM_SCHEMA: Final = {
    "type": "object",
    "required": ["question"],
    "properties": {
        "question": _TEXT,
        "image": {"type": "string", "format": "binary"},
        "collection": {**_TEXT, "default": "default"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 50},
        "filter": {**_TEXT, "description": "JSON"},
        "stream": {"type": "boolean"},
        "wait_s": {"type": "number"},
        "timeout_s": {"type": "number"},
    },
}
REQUEST_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{QuestionBody.__name__}"}},
            "multipart/form-data": {"schema": FORM_SCHEMA},
        },
    }
}


async def read_question(request: Request, state: ApiState, tenant: str) -> tuple[QuestionBody, str | None]:
    """The question, and the SHA-256 of its image. Nothing is stored or fetched for one that is refused."""
    if media_type_of(request) == "multipart/form-data":
        return await _read_form(request, state, tenant)
    require_json(request)
    body = validated(QuestionBody, _json(await request.body()))
    await _check(body, state, tenant)
    return body, await _store(body, state)


async def _read_form(request: Request, state: ApiState, tenant: str) -> tuple[QuestionBody, str | None]:
    most = state.services.settings.images.max_bytes
    async with Spool(state.spool_folder, state.spool_limiter) as spool:
        reader = FormReader(request.headers["content-type"], spool, max_files=1, max_file_bytes=most)
        form = await reader.read(request.stream())
        body = validated(QuestionBody, _form_values(form.fields))
        if form.files and (form.files[0].field_name != "image" or body.image or body.image_path):
            raise InvalidInput("A question's form holds one image: in the field 'image', or as 'image_path'.")
        await _check(body, state, tenant)
        if form.files:
            return body, await put_image(state, await spool.read(form.files[0].start, form.files[0].size_bytes))
    return body, await _store(body, state)


async def _store(body: QuestionBody, state: ApiState) -> str | None:
    if body.image is not None:
        return await store_image(state, body.image)
    if body.image_path is not None:
        return await store_image_file(state, body.image_path)
    return None


def _form_values(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: value if name in _TEXTS else _json(value.encode()) for name, value in fields.items()}


async def _check(body: QuestionBody, state: ApiState, tenant: str) -> None:
    most = state.services.settings.api.max_question_chars
    if len(body.question) > most:
        raise TooLarge(f"The question has {len(body.question):,} characters; at most {most:,} are taken.")
    await state.require_collection(tenant, body.collection)


def _json(text: bytes) -> Any:
    try:
        return strict_json(text)
    except InvalidInput as exc:
        raise BadBody(status_of(exc), exc.message) from exc
