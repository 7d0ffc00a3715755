"""`/v1/batches`: what is accepted, what is refused at the door, and that no tenant sees another's."""

import io
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.api.main import create_app
from penstock.app import Services
from penstock.ledger.batch_records import NewItem, Position, SourceKind
from penstock.settings import ApiOptions, Settings
from penstock.types import Failure

NothingStored = Callable[[], Awaitable[bool]]


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, data in files.items():
            made.writestr(f"{name}.txt", data)
    return out.getvalue()


async def created(client: httpx.AsyncClient, *files: tuple[str, bytes], **headers: str) -> dict[str, Any]:
    reply = await client.post(
        "/v1/batches", files=[("files", file) for file in files], headers={"idempotency-key": "k", **headers}
    )
    assert reply.status_code == 202, reply.text
    batch: dict[str, Any] = reply.json()
    assert reply.headers["location"] == f"/v1/batches/{batch['id']}"
    return batch


async def test_files_and_archives_become_sources(client: httpx.AsyncClient, services: Services) -> None:
    packed = archive(a=b"one")
    batch = await created(client, ("b.txt", b"two"), ("docs.zip", packed), ("tool.exe", b"MZ\0\1\2" * 100))
    assert (batch["state"], batch["collection"]) == ("gathering", "default")
    sources = await services.ledger.batches.sources(batch["id"])
    assert [(source.kind, source.name) for source in sources] == [
        (SourceKind.FILE, "b.txt"),
        (SourceKind.ARCHIVE, "docs.zip"),
        (SourceKind.FILE, "tool.exe"),
    ]
    assert sources[1].sha256 is not None
    assert await services.blobs.get(sources[1].sha256) == packed
    assert sources[2].spec["error"]["code"] == "unsupported_media"
    job = await services.jobs.get(batch["job_id"])
    assert (job.kind, job.subject) == ("batch", batch["id"])


@pytest.mark.case(9)
async def test_the_same_key_is_the_same_batch_on_every_replica(client: httpx.AsyncClient, services: Services) -> None:
    first = await created(client, ("b.txt", b"two"))
    other_replica = httpx.ASGITransport(app=create_app(services))
    async with httpx.AsyncClient(transport=other_replica, base_url="http://localhost") as second:
        reply = await second.post("/v1/batches", files=[("files", ("b.txt", b"two"))], headers={"idempotency-key": "k"})
        assert (reply.status_code, reply.json()["id"]) == (200, first["id"])
        reply = await second.post(
            "/v1/batches", files=[("files", ("b.txt", b"other"))], headers={"idempotency-key": "k"}
        )
        assert reply.status_code == 409


async def test_urls_are_noted_once_each(client: httpx.AsyncClient, services: Services) -> None:
    urls = ["https://example.com/a.pdf", "http://example.com/b.pdf", "https://example.com/a.pdf"]
    reply = await client.post("/v1/batches", json={"urls": urls, "metadata": {"from": "web"}})
    assert reply.status_code == 202
    sources = await services.ledger.batches.sources(reply.json()["id"])
    assert [(source.kind, source.name) for source in sources] == [(SourceKind.URL, url) for url in urls[:2]]
    assert sources[0].spec["metadata"] == {"from": "web"}


@pytest.mark.case(29)
async def test_a_folder_is_refused_unless_allowed(client: httpx.AsyncClient, tmp_path: Path) -> None:
    for folder in (str(tmp_path), "/etc", "/nowhere", f"{tmp_path}/../.."):
        reply = await client.post("/v1/batches", json={"folder": folder})
        assert reply.status_code == 403
        assert "allowed_folders" in reply.json()["detail"]


async def test_an_allowed_folder_is_taken(services: Services, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings = Settings(data_dir=tmp_path, api=ApiOptions(allowed_folders=(tmp_path / "in",)))
    transport = httpx.ASGITransport(app=create_app(replace(services, settings=settings)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.post("/v1/batches", json={"folder": f"{tmp_path}/in", "include": ["*.pdf"]})
        assert reply.status_code == 202
        [source] = await services.ledger.batches.sources(reply.json()["id"])
        assert (source.kind, source.name, source.spec["include"]) == (
            SourceKind.FOLDER,
            str(tmp_path / "in"),
            ["*.pdf"],
        )
        assert (await client.post("/v1/batches", json={"folder": str(tmp_path)})).status_code == 403


@pytest.mark.parametrize(
    "body",
    [{}, {"urls": []}, {"urls": ["file:///etc/passwd"]}, {"urls": ["x"] * 10_001}, {"folder": ""}, {"files": []}],
    ids=str,
)
async def test_bodies_that_mean_nothing_are_refused(
    client: httpx.AsyncClient, nothing_stored: NothingStored, body: dict[str, Any]
) -> None:
    assert (await client.post("/v1/batches", json=body)).status_code == 422
    assert await nothing_stored()


async def test_an_unknown_collection_is_not_found(client: httpx.AsyncClient, nothing_stored: NothingStored) -> None:
    reply = await client.post("/v1/batches", files=[("files", ("a.txt", b"x"))], data={"collection": "nowhere"})
    assert reply.status_code == 404
    reply = await client.post("/v1/batches", json={"urls": ["https://example.com/"], "collection": "nowhere"})
    assert reply.status_code == 404
    assert await nothing_stored()


async def test_counts_items_cancel_and_retry(client: httpx.AsyncClient, services: Services) -> None:
    batch = await created(client, ("a.txt", b"one"))
    error = Failure(code="too_large", message="It is too large.")
    items = [NewItem(source=1, name=f"{n}", error=error) for n in range(3)]
    await services.ledger.batches.add(batch["id"], Position(), Position(source=2), items)
    url = f"/v1/batches/{batch['id']}"
    told = (await client.get(url)).json()
    assert told["counts"] == {"refused": 3}
    page = (await client.get(f"{url}/items", params={"state": ["refused", "failed"], "limit": 2})).json()
    assert [(item["name"], item["error"]["code"]) for item in page["items"]] == [("0", "too_large"), ("1", "too_large")]
    rest = (await client.get(f"{url}/items", params={"cursor": page["cursor"]})).json()
    assert [item["name"] for item in rest["items"]] == ["2"]
    assert (await client.post(f"{url}/cancel")).json()["state"] == "cancelled"
    retried = (await client.post(f"{url}/retry")).json()
    assert (retried["documents"], retried["gathering"]) == (0, True)
    assert [one["id"] for one in (await client.get("/v1/batches")).json()["batches"]] == [batch["id"]]


async def test_documents_are_deleted_by_what_they_are(client: httpx.AsyncClient) -> None:
    documents = [{"name": f"{year}.txt", "text": "words", "metadata": {"year": year}} for year in range(2015, 2025)]
    await client.post("/v1/documents", json={"documents": documents})
    where = {"filter": {"year": {"lt": 2020}}}
    assert (await client.post("/v1/documents/delete", json=where | {"dry_run": True})).json() == {
        "matched": 5,
        "deleted": 0,
    }
    assert (await client.post("/v1/documents/delete", json=where)).json() == {"matched": 5, "deleted": 5}
    left = (await client.get("/v1/documents")).json()["documents"]
    assert sorted(document["metadata"]["year"] for document in left) == list(range(2020, 2025))
    cancelled = (await client.get("/v1/jobs", params={"state": "cancelled"})).json()["jobs"]
    assert len(cancelled) == 5, "delete wins over the work that was on its way"
    assert (await client.post("/v1/documents/delete", json={"statuses": ["failed"]})).json()["matched"] == 0
    wrong: list[dict[str, Any]] = [{}, {"filter": {}}, {"filter": {"year": {"like": 1}}}]
    for body in wrong:
        assert (await client.post("/v1/documents/delete", json=body)).status_code == 422
    reply = await client.post("/v1/documents/delete", json={"collection": "nowhere", **where})
    assert reply.status_code == 404
