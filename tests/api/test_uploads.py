"""Uploads that are refused: clearly, early, and leaving nothing behind."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.api.main import create_app
from penstock.app import Services

JSON_TYPE = {"content-type": "application/json"}
NothingStored = Callable[[], Awaitable[bool]]


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", one) for one in named]


BAD_FILES = {
    "empty": (("a.txt", b""), 422, "empty_file"),
    "empty-pdf": (("a.pdf", b""), 422, "empty_file"),
    "program": (("a.exe", b"MZ\x90\x00\x03\x00\x00\x00" * 50), 415, "unsupported_media"),
    "archive": (("a.zip", b"PK\x03\x04" + b"\x00" * 200), 415, "unsupported_media"),
    "noise-called-pdf": (("a.pdf", b"\x00\x01\x02\x03" * 100), 415, "unsupported_media"),
    "name-of-nothing": (("../..//", b"hello"), 422, "invalid_input"),
    "name-that-turns": (("a\u202efdp.txt", b"hello"), 422, "invalid_input"),
    "name-too-long": (("a" * 5000, b"hello"), 422, "invalid_input"),
}


@pytest.mark.parametrize(("file", "status", "code"), BAD_FILES.values(), ids=BAD_FILES.keys())
async def test_a_bad_file_is_refused_and_nothing_of_the_request_is_stored(
    nothing_stored: NothingStored, client: httpx.AsyncClient, file: tuple[str, bytes], status: int, code: str
) -> None:
    reply = await client.post("/v1/documents", files=files(("good.txt", b"good"), file, ("also.txt", b"good too")))
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    (error,) = reply.json()["errors"]
    assert error["loc"][:2] == ["body", 1]
    assert await nothing_stored()


async def test_every_bad_file_is_named_at_once(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/documents", files=files(("a.txt", b""), ("b.exe", b"\x00" * 9), ("c.txt", b"fine")))
    assert [(one["loc"][2], one["code"]) for one in reply.json()["errors"]] == [
        ("a.txt", "empty_file"),
        ("b.exe", "unsupported_media"),
    ]


BAD_FORMS: dict[str, tuple[dict[str, Any], int]] = {
    "no-file": ({"data": {"collection": "default"}, "files": [("other", (None, "x"))]}, 422),
    "wrong-field": ({"files": [("file", ("a.txt", b"a"))]}, 422),
    "unknown-field": ({"files": files(("a.txt", b"a")), "data": {"colection": "x"}}, 422),
    "unknown-collection": ({"files": files(("a.txt", b"a")), "data": {"collection": "nowhere"}}, 404),
    "wrong-priority": ({"files": files(("a.txt", b"a")), "data": {"priority": "urgent"}}, 422),
    "metadata-no-json": ({"files": files(("a.txt", b"a")), "data": {"metadata": "{"}}, 400),
    "metadata-no-object": ({"files": files(("a.txt", b"a")), "data": {"metadata": "3"}}, 422),
    "metadata-too-deep": ({"files": files(("a.txt", b"a")), "data": {"metadata": '{"a":' * 20 + "1" + "}" * 20}}, 422),
    "metadata-too-large": (
        {"files": files(("a.txt", b"a")), "data": {"metadata": json.dumps({"a": "x" * 20_000})}},
        422,
    ),
    "twice": ({"files": files(("a.txt", b"a")), "data": {"collection": ["default", "default"]}}, 400),
    "no-boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    "no-form": ({"content": b"hello", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
    "other-type": ({"content": b"hello", "headers": {"content-type": "text/plain"}}, 415),
    "urlencoded": ({"data": {"collection": "default"}}, 415),
    "no-type": ({"content": b"hello"}, 415),
}


@pytest.mark.parametrize(("sent", "status"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
async def test_a_bad_form_is_refused_clearly(
    nothing_stored: NothingStored, client: httpx.AsyncClient, sent: dict[str, Any], status: int
) -> None:
    reply = await client.post("/v1/documents", **sent)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert await nothing_stored()


BAD_JSON: dict[str, tuple[bytes, int]] = {
    "broken": (b'{"documents": [', 400),
    "bad-utf8": (b'{"documents": [{"name": "a", "text": "\xff\xfe"}]}', 400),
    "surrogate": (b'{"documents": [{"name": "a", "text": "\\ud800"}]}', 400),
    "no-object": (b"[]", 422),
    "no-documents": (b'{"documents": []}', 422),
    "no-text": (b'{"documents": [{"name": "a"}]}', 422),
    "blank-text": (b'{"documents": [{"name": "a", "text": " \\n"}]}', 422),
    "nul": (b'{"documents": [{"name": "a", "text": "a\\u0000b"}]}', 422),
    "name-with-control": (b'{"documents": [{"name": "a\\u0007b", "text": "b"}]}', 422),
    "number-for-text": (b'{"documents": [{"name": "a", "text": 3}]}', 422),
    "unknown-field": (b'{"documents": [{"name": "a", "text": "b", "txt": "c"}]}', 422),
    "binary-type": (b'{"documents": [{"name": "a", "text": "b", "media_type": "application/pdf"}]}', 422),
    "unknown-collection": (b'{"collection": "nowhere", "documents": [{"name": "a", "text": "b"}]}', 404),
    "too-many": (json.dumps({"documents": [{"name": "a", "text": "b"}] * 5001}).encode(), 422),
}


@pytest.mark.case(31)
@pytest.mark.parametrize(("body", "status"), BAD_JSON.values(), ids=BAD_JSON.keys())
async def test_bad_json_is_refused_clearly(
    nothing_stored: NothingStored, client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    reply = await client.post("/v1/documents", content=body, headers=JSON_TYPE)
    assert reply.status_code == status, reply.text
    assert len(reply.text) < 20_000
    assert await nothing_stored()


@pytest.mark.case(29)
@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("..\\..\\windows\\win.ini", "windows/win.ini"),
        ("a/./b//c.txt", "a/b/c.txt"),
        ("%2e%2e%2fetc", "%2e%2e%2fetc"),
        ("CON", "CON"),
    ],
)
async def test_a_name_is_a_label_that_leads_nowhere(
    services: Services, client: httpx.AsyncClient, name: str, stored: str
) -> None:
    reply = await client.post("/v1/documents", json={"documents": [{"name": name, "text": "root"}]})
    assert reply.json()["documents"][0]["document"]["name"] == stored
    (blob,) = [blob async for blob in services.blobs.list()]
    assert len(blob.sha256) == 64


def form(parts: int, *, named: bool = False) -> tuple[bytes, dict[str, str]]:
    """A form of so many little parts."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"' + (b'; filename="a.txt"' if named else b"")
    return (head + b"\r\n\r\nx\r\n") * parts + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.case(31)
@pytest.mark.parametrize(("parts", "named", "status"), [(10_000, False, 400), (6_000, True, 413)])
async def test_a_form_of_very_many_parts_is_refused(
    nothing_stored: NothingStored, client: httpx.AsyncClient, parts: int, named: bool, status: int
) -> None:
    body, headers = form(parts, named=named)
    reply = await client.post("/v1/documents", content=body, headers=headers)
    assert reply.status_code == status
    assert await nothing_stored()


@pytest.mark.case(31)
async def test_a_form_that_breaks_off_is_refused(nothing_stored: NothingStored, client: httpx.AsyncClient) -> None:
    body, headers = form(3, named=True)
    reply = await client.post("/v1/documents", content=body[:-20], headers=headers)
    assert reply.status_code == 400
    assert await nothing_stored()


@pytest.fixture
async def small(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """An api that takes files of 100 kB, requests of 300 kB and JSON of 50 kB."""
    limits = {"max_upload_bytes": 100_000, "max_request_bytes": 300_000, "max_body_json_bytes": 50_000}
    api = services.settings.api.model_copy(update=limits)
    app = create_app(replace(services, settings=services.settings.model_copy(update={"api": api})))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.mark.case(31)
@pytest.mark.parametrize("size", [100_001, 400_000])
async def test_a_file_or_request_over_the_limit_is_refused(
    nothing_stored: NothingStored, small: httpx.AsyncClient, size: int
) -> None:
    reply = await small.post("/v1/documents", files=files(("good.txt", b"good"), ("big.txt", b"x" * size)))
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert await nothing_stored()
    assert (await small.post("/v1/documents", files=files(("ok.txt", b"x" * 100_000)))).status_code == 202


@pytest.mark.case(31)
@pytest.mark.parametrize("declared", [None, "10", "-1", "1e3", "9" * 30])
async def test_a_body_is_counted_whatever_length_it_declares(
    nothing_stored: NothingStored, small: httpx.AsyncClient, declared: str | None
) -> None:
    async def more_than_declared() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    headers = {**JSON_TYPE, "transfer-encoding": "chunked"} if declared is None else JSON_TYPE
    request = small.build_request("POST", "/v1/documents", content=more_than_declared(), headers=headers)
    if declared is not None:
        del request.headers["transfer-encoding"]
        request.headers["content-length"] = declared
    reply = await small.send(request)
    assert reply.status_code == 413
    assert reply.headers["connection"] == "close"
    assert await nothing_stored()


async def test_the_spool_leaves_nothing_in_the_data_folder(
    nothing_stored: NothingStored, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await client.post("/v1/documents", files=files(("big.txt", b"x" * 3_000_000)))
    assert os.listdir(tmp_path) == []  # noqa: PTH208
