"""Questions with an image over HTTP: every way in, and everything that is refused there (cases 28 and 29)."""

import base64
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from penstock.api.main import create_app
from penstock.app import Services
from penstock.fetch import Fetcher, FetchOptions
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import Worker
from penstock.pipeline.pictures import ImageOptions
from penstock.testing.network import PUBLIC, FakeNetwork, FileServer, http_reply
from penstock.types import CollectionOptions

NothingStored = Callable[[], Awaitable[bool]]


def picture(kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(data, kind)
    return data.getvalue()


PNG = picture()
BASE64 = base64.b64encode(PNG).decode()


async def image_of(services: Services, reply: httpx.Response) -> bytes:
    assert reply.status_code == 202, reply.text
    job = await services.jobs.get(reply.json()["job_id"])
    return await services.blobs.get(job.payload["image_sha256"])


@pytest.mark.parametrize("image", [BASE64, base64.encodebytes(PNG).decode(), f"data:image/png;base64,{BASE64}"])
async def test_base64_in_json(services: Services, client: httpx.AsyncClient, image: str) -> None:
    reply = await client.post("/v1/questions", json={"question": "What is this?", "image": image})
    assert await image_of(services, reply) == PNG


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "GIF", "BMP"])
async def test_all_kinds_of_images(services: Services, client: httpx.AsyncClient, kind: str) -> None:
    image = base64.b64encode(picture(kind)).decode()
    reply = await client.post("/v1/questions", json={"question": "What is this?", "image": image})
    assert await image_of(services, reply) == picture(kind)


async def test_a_file_of_a_form_beside_all_other_fields(services: Services, client: httpx.AsyncClient) -> None:
    await client.post("/v1/collections", json={"name": "codes"})
    fields = {"question": "What is this?", "collection": "codes", "limit": "3", "filter": '{"city": "Graz"}'}
    reply = await client.post("/v1/questions", data=fields, files={"image": ("a.png", PNG, "image/png")})
    assert await image_of(services, reply) == PNG
    payload = (await services.jobs.get(reply.json()["job_id"])).payload
    assert (payload["collection"], payload["limit"], payload["filter"]) == ("codes", 3, {"city": "Graz"})


async def test_a_form_may_wait_and_may_do_without_a_file(client: httpx.AsyncClient, worker: Worker) -> None:
    parts = [("question", (None, "Why?")), ("wait_s", (None, "10"))]
    reply = await client.post("/v1/questions", files=parts)
    assert (reply.status_code, reply.json()["answer"]["text"]) == (200, "Yes [1].")


BAD_FORMS: dict[str, tuple[dict[str, str], Any, int]] = {
    "other-field": ({"question": "x"}, {"files": ("a.png", PNG)}, 422),
    "twice": ({"question": "x"}, [("image", ("a.png", PNG)), ("image", ("b.png", PNG))], 413),
    "both": ({"question": "x", "image": BASE64}, {"image": ("a.png", PNG)}, 422),
    "unknown": ({"question": "x", "nonsense": "1"}, {"image": ("a.png", PNG)}, 422),
    "no-question": ({}, {"image": ("a.png", PNG)}, 422),
    "bad-number": ({"question": "x", "limit": "many"}, {"image": ("a.png", PNG)}, 400),
    "bad-filter": ({"question": "x", "filter": "[1]"}, {"image": ("a.png", PNG)}, 422),
    "empty": ({"question": "x"}, {"image": ("a.png", b"")}, 422),
    "text": ({"question": "x"}, {"image": ("a.png", b"hello")}, 415),
    "too-large": ({"question": "x"}, {"image": ("a.png", PNG + bytes(10 * 1024 * 1024))}, 413),
    "no-collection": ({"question": "x", "collection": "nowhere"}, {"image": ("a.png", PNG)}, 404),
}


@pytest.mark.parametrize(("fields", "files", "status"), BAD_FORMS.values(), ids=BAD_FORMS.keys())
async def test_bad_forms_are_refused_and_nothing_is_stored(
    client: httpx.AsyncClient, nothing_stored: NothingStored, fields: dict[str, str], files: Any, status: int
) -> None:
    reply = await client.post("/v1/questions", data=fields, files=files)
    assert reply.status_code == status, reply.text
    assert await nothing_stored()


BAD_IMAGES = {
    "no-base64": ("###", 422),
    "empty": ("", 422),
    "empty-data": ("data:image/png;base64,", 422),
    "data-text": ("data:text/plain,hello", 422),
    "text": (base64.b64encode(b"hello").decode(), 415),
    "svg": (base64.b64encode(b"<svg onload='x'/>").decode(), 415),
    "pdf": (base64.b64encode(b"%PDF-1.7").decode(), 415),
    "unknown": (base64.b64encode(bytes(range(256))).decode(), 415),
    "file-url": ("file:///etc/passwd", 422),
    "gopher": ("gopher://files.example/", 422),
    "too-large": ("A" * 15_000_000, 413),
}


@pytest.mark.parametrize(("image", "status"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
async def test_bad_images_are_refused_and_nothing_is_stored(
    client: httpx.AsyncClient, nothing_stored: NothingStored, image: str, status: int
) -> None:
    reply = await client.post("/v1/questions", json={"question": "What is this?", "image": image})
    assert reply.status_code == status, reply.text
    assert await nothing_stored()


async def test_one_key_is_one_question_with_one_image(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k"}
    first = await client.post("/v1/questions", json={"question": "x", "image": BASE64}, headers=headers)
    form = {"data": {"question": "x"}, "files": {"image": ("a.png", PNG)}}
    same = await client.post("/v1/questions", headers=headers, **form)  # type: ignore[arg-type]
    assert first.json()["job_id"] == same.json()["job_id"]
    other = {"question": "x", "image": base64.b64encode(picture("GIF")).decode()}
    assert (await client.post("/v1/questions", json=other, headers=headers)).status_code == 409


@pytest.fixture
async def files() -> AsyncIterator[FileServer]:
    async with FileServer().running() as running:
        running.replies["/a.png"] = http_reply(PNG, media_type="text/html")
        running.replies["/lie.png"] = http_reply(b"<html>", media_type="image/png")
        yield running


@pytest.fixture
async def network(files: FileServer) -> FakeNetwork:
    return FakeNetwork({"files.example": [[PUBLIC]], "intranet.example": [["10.0.0.7"]]}, files.port)


@pytest.fixture
async def fetching(services: Services, network: FakeNetwork) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose fetcher sees the fake network."""
    async with Fetcher(FetchOptions(), resolve=network.resolve, dialer=network) as fetcher:
        app = create_app(replace(services, fetcher=fetcher))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as opened:
            yield opened


@pytest.mark.case(28)
async def test_a_url_is_fetched_and_stored(services: Services, fetching: httpx.AsyncClient) -> None:
    url = "http://files.example/a.png"
    assert await image_of(services, await fetching.post("/v1/questions", json={"question": "x", "image": url})) == PNG
    legacy = await fetching.post("/api/async/analyze-image", json={"query": "x", "image_url": url})
    job = await services.jobs.get(legacy.json()["task_id"])
    assert await services.blobs.get(job.payload["image_sha256"]) == PNG


@pytest.mark.case(28)
@pytest.mark.parametrize("field", ["image", "image_url"])
async def test_urls_that_lead_nowhere_are_refused_alike(
    fetching: httpx.AsyncClient, network: FakeNetwork, nothing_stored: NothingStored, field: str
) -> None:
    path, question = ("/v1/questions", "question") if field == "image" else ("/api/async/analyze-image", "query")
    details = set()
    for url in (
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:7733/v1/keys",
        "http://[::ffff:10.0.0.1]/",
        "http://intranet.example/",
        "http://files.example@127.0.0.1/",
        "http://files.example/missing",
        "http://files.example/lie.png",
    ):
        reply = await fetching.post(path, json={question: "x", field: url})
        assert (reply.status_code, reply.json()["code"]) == (422, "fetch_failed")
        details.add(reply.json()["detail"])
    assert len(details) == 1
    assert {address for address, _ in network.dialled} == {PUBLIC}
    assert await nothing_stored()


@pytest.mark.case(33)
async def test_nothing_is_fetched_for_a_caller_without_a_key(
    fetching: httpx.AsyncClient, network: FakeNetwork, api_key: str, nothing_stored: NothingStored
) -> None:
    for path, body in (
        ("/v1/questions", {"question": "x", "image": "http://files.example/a.png"}),
        ("/api/async/analyze-image", {"query": "x", "image_url": "http://files.example/a.png"}),
    ):
        assert (await fetching.post(path, json=body)).status_code == 401
    assert network.looked_up == []
    assert await nothing_stored()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images, with a secret beside it and every way out of it that there is."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (root / "sub" / "b b.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "linked").symlink_to(tmp_path)
    (root / "huge.png").write_bytes(PNG + bytes(1000))
    (root / "text.png").write_text("hello")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.fixture
async def reading(services: Services, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that reads images from the folder."""
    images = ImageOptions(folder=folder, max_bytes=1000)
    settings = services.settings.model_copy(update={"images": images})
    app = create_app(replace(services, settings=settings))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as opened:
        yield opened


@pytest.mark.case(29)
@pytest.mark.parametrize("path", ["a.png", "sub/b b.png"])
async def test_a_file_of_the_servers_folder(services: Services, reading: httpx.AsyncClient, path: str) -> None:
    reply = await reading.post("/v1/questions", json={"question": "x", "image_path": path})
    assert await image_of(services, reply) == PNG


@pytest.mark.case(29)
@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "sub/../../secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "..\\secret.png",
        "/etc/passwd",
        "//etc/passwd",
        "./a.png",
        "sub//b b.png",
        "a.png\0.txt",
        "link.png",
        "inside.png",
        "linked/secret.png",
        "pipe.png",
        "sub",
        "sub/",
        "missing.png",
        "a.png/b.png",
        "CON",
        "\u202ea.png",
        "a" * 5000,
        "a" * 300,
        "text.png",
        "huge.png",
    ],
)
async def test_no_path_leads_out_of_it(reading: httpx.AsyncClient, nothing_stored: NothingStored, path: str) -> None:
    reply = await reading.post("/v1/questions", json={"question": "x", "image_path": path})
    assert reply.status_code in {404, 413, 415, 422}
    assert str(Path("/etc")) not in reply.json()["detail"]
    assert await nothing_stored()


@pytest.mark.case(29)
async def test_paths_are_switched_off_by_default(client: httpx.AsyncClient, nothing_stored: NothingStored) -> None:
    reply = await client.post("/v1/questions", json={"question": "x", "image_path": "a.png"})
    assert (reply.status_code, "IMAGES__FOLDER" in reply.json()["detail"]) == (422, True)
    assert await nothing_stored()


@pytest.mark.case(36)
@pytest.mark.parametrize(
    "field", ["model", "base_url", "api_base", "api_key", "system", "messages", "generator", "vision", "image_sha256"]
)
async def test_a_caller_cannot_choose_who_is_asked(
    client: httpx.AsyncClient, nothing_stored: NothingStored, field: str
) -> None:
    for image in ({}, {"image": BASE64}):
        reply = await client.post("/v1/questions", json={"question": "x", field: "http://evil.example/v1", **image})
        assert reply.status_code == 422
    assert await nothing_stored()


async def test_a_search_takes_an_image_as_questions_do(services: Services, client: httpx.AsyncClient) -> None:
    options = CollectionOptions(image_model="clip")
    await services.ledger.create_collection("default", "pictures", options)
    body = {"collection": "pictures", "timeout_s": 0.1}
    for sent in (
        await client.post("/v1/search", json={**body, "image": BASE64}),
        await client.post("/v1/search", json={**body, "image": BASE64, "query": "A gate"}),
        await client.post(
            "/v1/search",
            data={"collection": "pictures", "query": "A gate", "timeout_s": "0.1"},
            files={"image": ("a.png", PNG, "image/png")},
        ),
    ):
        assert sent.status_code in {503, 504}, sent.text  # nobody works here, but it was taken
    jobs = (await services.jobs.list(JobFilter(kinds=frozenset({"search"})))).jobs
    assert sorted(job.payload["query"] for job in jobs) == ["", "A gate", "A gate"]
    assert {await services.blobs.get(job.payload["image_sha256"]) for job in jobs} == {PNG}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"image": BASE64},  # the default collection has no image model
        {"image": BASE64, "query": "A gate", "mode": "dense"},
        {"image": BASE64, "image_path": "a.png"},
    ],
)
async def test_a_search_that_cannot_be_is_refused(
    client: httpx.AsyncClient, nothing_stored: NothingStored, body: dict[str, str]
) -> None:
    reply = await client.post("/v1/search", json=body)
    assert reply.status_code in {400, 422}, reply.text
    assert await nothing_stored()
