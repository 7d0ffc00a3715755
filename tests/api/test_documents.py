"""Documents over HTTP: taken, listed, read, downloaded, deleted."""

import asyncio
from typing import Any

import httpx
import pytest

from penstock.app import Services
from penstock.jobs.base import JobFilter
from penstock.types import Chunk

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", one) for one in named]


async def finish(services: Services, document: dict[str, Any]) -> None:
    chunk = Chunk(
        id="chk_1",
        document_id=document["id"],
        version_id=document["version_id"],
        collection_id=document["collection_id"],
        position=0,
        text="hello",
        start=0,
        end=5,
        tokens=1,
    )
    assert await services.ledger.finish_version(document["version_id"], [chunk], pages=1)


async def test_files_are_taken_with_their_types_and_metadata(client: httpx.AsyncClient) -> None:
    sent = files(("report.pdf", PDF), ("notes/ä 城市.md", b"# Hi"))
    reply = await client.post("/v1/documents", files=sent, data={"metadata": '{"city": "Graz"}', "priority": "normal"})
    assert reply.status_code == 202
    documents = [one["document"] for one in reply.json()["documents"]]
    assert [one["media_type"] for one in documents] == ["application/pdf", "text/markdown"]
    assert [one["name"] for one in documents] == ["report.pdf", "notes/ä 城市.md"]
    assert all(one["metadata"] == {"city": "Graz"} and one["status"] == "pending" for one in documents)
    job = (await client.get(f"/v1/jobs/{documents[0]['job_id']}")).json()
    assert (job["kind"], job["priority"], job["subject"]) == ("ingest", "normal", documents[0]["version_id"])


async def test_each_file_may_have_metadata_of_its_own(client: httpx.AsyncClient) -> None:
    sent = files(("a.txt", b"a"), ("b.txt", b"b"))
    reply = await client.post("/v1/documents", files=sent, data={"metadata": '[{"n": 1}, {"n": 2}]'})
    assert [one["document"]["metadata"]["n"] for one in reply.json()["documents"]] == [1, 2]
    wrong = await client.post("/v1/documents", files=sent, data={"metadata": '[{"n": 1}]'})
    assert wrong.status_code == 422


async def test_text_is_taken_as_json_by_the_thousand(services: Services, client: httpx.AsyncClient) -> None:
    documents = [{"name": f"{i}.txt", "text": f"passage {i}", "metadata": {"i": i}} for i in range(2000)]
    reply = await client.post("/v1/documents", json={"documents": documents})
    assert reply.status_code == 202
    added = reply.json()["documents"]
    assert [one["document"]["name"] for one in added] == [one["name"] for one in documents]
    assert await services.jobs.count(JobFilter(kinds=frozenset({"ingest"}))) == 2000
    assert await services.blobs.get(added[7]["document"]["sha256"]) == b"passage 7"


async def test_a_large_file_is_streamed_through_the_disk_unchanged(
    services: Services, client: httpx.AsyncClient
) -> None:
    data = b"".join(b"line %d\n" % i for i in range(500_000))
    reply = await client.post(
        "/v1/documents", files=files(("a.txt", b"before"), ("big.txt", data), ("b.txt", b"after"))
    )
    stored = [await services.blobs.get(one["document"]["sha256"]) for one in reply.json()["documents"]]
    assert stored == [b"before", data, b"after"]


async def test_what_is_indexed_already_is_recognised(services: Services, client: httpx.AsyncClient) -> None:
    sent = files(("a.txt", b"hello"))
    first = (await client.post("/v1/documents", files=sent)).json()["documents"][0]
    pending = await client.post("/v1/documents", files=sent)
    assert (pending.status_code, pending.json()["documents"][0]["status"]) == (202, "already_pending")
    assert pending.json()["documents"][0]["job_id"] == first["job_id"]
    await finish(services, first["document"])
    again = await client.post("/v1/documents", files=sent)
    assert (again.status_code, again.json()["documents"][0]["status"]) == (200, "already_indexed")
    mixed = await client.post("/v1/documents", files=[*sent, *files(("new.txt", b"new"))])
    assert mixed.status_code == 202


async def test_a_document_is_listed_read_downloaded_and_deleted(services: Services, client: httpx.AsyncClient) -> None:
    added = (await client.post("/v1/documents", files=files(("notes/a.html", b"<html>hi</html>")))).json()["documents"][
        0
    ]
    address = f"/v1/documents/{added['document']['id']}"
    seen = (await client.get(address)).json()
    assert (seen["document"]["name"], seen["job"]["id"]) == ("notes/a.html", added["job_id"])
    assert (await client.get(f"{address}/chunks")).json() == {"chunks": [], "cursor": None}
    await finish(services, added["document"])
    assert [one["text"] for one in (await client.get(f"{address}/chunks")).json()["chunks"]] == ["hello"]
    done = await client.get("/v1/documents", params={"status": "done", "name": "notes/a.html"})
    assert [one["id"] for one in done.json()["documents"]] == [added["document"]["id"]]
    assert (await client.get("/v1/documents", params={"status": "failed"})).json()["documents"] == []

    content = await client.get(f"{address}/content")
    assert content.content == b"<html>hi</html>"
    assert (await client.delete(address)).json()["id"] == added["document"]["id"]
    for gone in (address, f"{address}/chunks", f"{address}/content"):
        assert (await client.get(gone)).status_code == 404
    assert (await client.get(f"/v1/jobs/{added['job_id']}")).json()["state"] == "cancelled"


@pytest.mark.case(35)
async def test_a_download_is_saved_and_never_shown(client: httpx.AsyncClient) -> None:
    name = "x\"; filename=evil.html' ä.html"
    added = (await client.post("/v1/documents", json={"documents": [{"name": name, "text": "<script>"}]})).json()
    content = await client.get(f"/v1/documents/{added['documents'][0]['document']['id']}/content")
    assert content.headers["content-disposition"].startswith("attachment; filename*=utf-8''x%22%3B%20filename%3Devil")
    assert content.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in content.headers["content-security-policy"]


async def test_pages_of_documents_and_chunks_follow_each_other(services: Services, client: httpx.AsyncClient) -> None:
    documents = [{"name": f"{i}", "text": f"text {i}"} for i in range(5)]
    await client.post("/v1/documents", json={"documents": documents})
    names: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/documents", params=params)).json()
        names += [one["name"] for one in page["documents"]]
        if (cursor := page["cursor"]) is None:
            break
    assert sorted(names) == ["0", "1", "2", "3", "4"]
    assert (await client.get("/v1/documents", params={"cursor": "nonsense"})).status_code == 422


async def test_many_first_uploads_at_once_make_one_default_collection(client: httpx.AsyncClient) -> None:
    bodies = [{"documents": [{"name": f"{i}", "text": f"text {i}"}]} for i in range(50)]
    replies = await asyncio.gather(*(client.post("/v1/documents", json=body) for body in bodies))
    assert {reply.status_code for reply in replies} == {202}
    (collection,) = (await client.get("/v1/collections")).json()["collections"]
    assert collection["name"] == "default"
