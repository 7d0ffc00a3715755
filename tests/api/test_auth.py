"""Who may call: open on loopback until a key exists, then nothing without one, whatever the header's form."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from penstock.api import auth
from penstock.api.auth import OPEN_PATHS
from penstock.api.main import create_app
from penstock.app import Services

FORMS: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda key: {"authorization": f"Bearer {key}"},
    "bearer-lower-case": lambda key: {"authorization": f"bearer {key}"},
    "x-api-key": lambda key: {"x-api-key": key},
    "both": lambda key: {"authorization": f"Bearer {key}", "x-api-key": key},
}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every documented (method, path), its parameters filled in, and a few that are not documented."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), path.replace("{", "").replace("}", "")
    yield from (("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nowhere"), ("OPTIONS", "/v1/jobs"))


@asynccontextmanager
async def client_of(services: Services, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app with other options over the same services."""
    api = services.settings.api.model_copy(update=options)
    app = create_app(replace(services, settings=services.settings.model_copy(update={"api": api})))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.fixture(autouse=True)
def no_key_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KEY_CACHE_S", 0.0)


@pytest.mark.case(33)
async def test_without_a_key_every_route_but_the_probes_is_refused(
    app: FastAPI, client: httpx.AsyncClient, api_key: str
) -> None:
    for method, path in routes(app):
        reply = await client.request(method, path, json={})
        if path in OPEN_PATHS:
            assert reply.status_code in {200, 503}, path
        else:
            assert reply.status_code == 401, (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.case(33)
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_key_gives_the_same_decision_on_every_route(
    app: FastAPI, client: httpx.AsyncClient, api_key: str, form: str
) -> None:
    for method, path in routes(app):
        good = await client.request(method, path, headers=FORMS[form](api_key))
        bad = await client.request(method, path, headers=FORMS[form](api_key[:-1]))
        assert good.status_code != 401, (method, path)
        assert bad.status_code == (401 if path not in OPEN_PATHS else good.status_code), (method, path)


@pytest.mark.case(33)
@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic {key}"},
        {"authorization": "{key}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer {key}", "x-api-key": "other"},
        {"x-api-key": ""},
        {"x-api-key": "{key} {key}"},
        {"cookie": "api_key={key}"},
    ],
)
async def test_a_key_in_any_other_place_or_two_of_them_are_refused(
    client: httpx.AsyncClient, api_key: str, headers: dict[str, str]
) -> None:
    sent = {name: value.replace("{key}", api_key) for name, value in headers.items()}
    assert (await client.get("/v1/jobs", headers=sent)).status_code == 401
    assert (await client.get("/v1/jobs", params={"api_key": api_key})).status_code == 401


@pytest.mark.case(33)
@pytest.mark.parametrize("host", ["x/healthz?", "localhost/healthz#", "localhost:80/healthz?x=", "", "a@b"])
async def test_no_host_header_opens_a_door(client: httpx.AsyncClient, api_key: str, host: str) -> None:
    assert (await client.get("/v1/jobs", headers={"host": host})).status_code == 401


@pytest.mark.case(33)
@pytest.mark.parametrize("path", ["/healthz/", "//healthz", "/healthz/../v1/jobs", "/v1/jobs/../healthz", "/HEALTHZ"])
async def test_nothing_but_the_probes_own_paths_is_open(client: httpx.AsyncClient, api_key: str, path: str) -> None:
    assert (await client.get(path)).status_code == 401


@pytest.mark.case(33)
async def test_an_upload_without_a_key_writes_nothing(
    services: Services, client: httpx.AsyncClient, api_key: str
) -> None:
    big = b"x" * (3 * 1024 * 1024)
    reply = await client.post("/v1/documents", files=[("files", ("a.txt", big))])
    assert reply.status_code == 401
    assert reply.headers["connection"] == "close"
    assert [blob async for blob in services.blobs.list()] == []


async def test_a_revoked_key_is_refused_and_does_not_open_the_door(
    services: Services, client: httpx.AsyncClient, api_key: str
) -> None:
    (key,) = await services.ledger.list_api_keys(None)
    assert (await client.get("/v1/jobs", headers={"x-api-key": api_key})).status_code == 200
    await services.ledger.revoke_api_key(key.id)
    assert (await client.get("/v1/jobs", headers={"x-api-key": api_key})).status_code == 401
    assert (await client.get("/v1/jobs")).status_code == 401


async def test_a_key_that_may_only_read_cannot_change_anything(services: Services, client: httpx.AsyncClient) -> None:
    _, secret = await services.ledger.create_api_key("default", "reader", ("read",))
    headers = {"x-api-key": secret}
    assert (await client.get("/v1/collections", headers=headers)).status_code == 200
    assert (await client.post("/v1/collections", headers=headers, json={"name": "a"})).status_code == 403
    assert (await client.post("/v1/documents", headers=headers, json={"documents": []})).status_code == 403
    assert (await client.post("/v1/jobs/cancel", headers=headers, json={})).status_code == 403
    assert (await client.post("/v1/questions", headers=headers, json={"question": "Why?"})).status_code == 202


@pytest.mark.case(33)
async def test_an_open_address_without_a_key_is_refused_even_if_something_made_it_listen(services: Services) -> None:
    async with client_of(services, host="0.0.0.0") as client:
        assert (await client.get("/v1/jobs")).status_code == 401
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.case(33)
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:7733"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_while_there_is_no_key_foreign_pages_cannot_call(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await client.get("/v1/jobs", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7733"},
        {"host": "[::1]:7733"},
        {"host": "penstock.localhost"},
        {"host": "penstock:7733"},
        {"host": "localhost:7733", "origin": "http://localhost:7733", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_while_there_is_no_key_local_callers_can(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.get("/v1/jobs", headers=headers)).status_code == 200


@pytest.mark.case(33)
async def test_no_key_and_no_text_gets_into_the_log(
    client: httpx.AsyncClient, api_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    documents = {"documents": [{"name": "a.txt", "text": "the-secret-text"}]}
    await client.post("/v1/documents", headers={"x-api-key": api_key}, json=documents)
    refused = await client.post("/v1/documents", headers={"x-api-key": api_key + "x"}, json=documents)
    assert refused.status_code == 401
    assert api_key not in caplog.text + refused.text
    assert "the-secret-text" not in caplog.text


@pytest.mark.case(35)
async def test_no_page_of_another_origin_may_read_answers_by_default(client: httpx.AsyncClient, api_key: str) -> None:
    reply = await client.get("/v1/jobs", headers={"x-api-key": api_key, "origin": "https://page.example"})
    assert reply.status_code == 200
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.case(35)
@pytest.mark.parametrize(("origins", "allowed"), [(("https://page.example",), True), (("*",), False)])
async def test_only_origins_that_are_named_may_and_never_all_of_them(
    services: Services, origins: tuple[str, ...], allowed: bool
) -> None:
    origin = {"origin": "https://page.example", "sec-fetch-site": "cross-site"}
    async with client_of(services, cors_origins=origins) as client:
        asked = await client.options("/v1/questions", headers={**origin, "access-control-request-method": "POST"})
        assert (asked.headers.get("access-control-allow-origin") == "https://page.example") is allowed
        assert "access-control-allow-credentials" not in asked.headers
        reply = await client.get("/v1/jobs", headers=origin)
        assert reply.status_code == (200 if allowed else 403)
        assert reply.headers.get("access-control-allow-origin") != "*"
