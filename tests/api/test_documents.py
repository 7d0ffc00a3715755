"""Documents over HTTP: what is taken, what is refused, and that a refusal leaves nothing behind."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from penstock.api.main import create_app
from penstock.app import Services
from penstock.jobs.base import JobFilter
from penstock.types import Chunk

PDF = b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n"
JSON_TYPE = {"content-type": "application/json"}


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", one) for one in named]


async def nothing_stored(services: Services) -> bool:
    blobs = [blob async for blob in services.blobs.list()]
    documents = (await services.ledger.list_documents("default")).documents
    return not blobs and not documents and not await services.jobs.count(JobFilter())


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


# --- taken ----------------------------------------------------------------------------------------------------------


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


# --- refused --------------------------------------------------------------------------------------------------------

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
    services: Services, client: httpx.AsyncClient, file: tuple[str, bytes], status: int, code: str
) -> None:
    reply = await client.post("/v1/documents", files=files(("good.txt", b"good"), file, ("also.txt", b"good too")))
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    (error,) = reply.json()["errors"]
    assert error["loc"][:2] == ["body", 1]
    assert await nothing_stored(services)


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
    services: Services, client: httpx.AsyncClient, sent: dict[str, Any], status: int
) -> None:
    reply = await client.post("/v1/documents", **sent)
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert await nothing_stored(services)


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
    services: Services, client: httpx.AsyncClient, body: bytes, status: int
) -> None:
    reply = await client.post("/v1/documents", content=body, headers=JSON_TYPE)
    assert reply.status_code == status, reply.text
    assert len(reply.text) < 20_000
    assert await nothing_stored(services)


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


# --- limits ---------------------------------------------------------------------------------------------------------


def form(parts: int, *, named: bool = False) -> tuple[bytes, dict[str, str]]:
    """A form of so many little parts."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"' + (b'; filename="a.txt"' if named else b"")
    return (head + b"\r\n\r\nx\r\n") * parts + b"--x--\r\n", {"content-type": "multipart/form-data; boundary=x"}


@pytest.mark.case(31)
@pytest.mark.parametrize(("parts", "named", "status"), [(10_000, False, 400), (6_000, True, 413)])
async def test_a_form_of_very_many_parts_is_refused(
    services: Services, client: httpx.AsyncClient, parts: int, named: bool, status: int
) -> None:
    body, headers = form(parts, named=named)
    reply = await client.post("/v1/documents", content=body, headers=headers)
    assert reply.status_code == status
    assert await nothing_stored(services)


@pytest.mark.case(31)
async def test_a_form_that_breaks_off_is_refused(services: Services, client: httpx.AsyncClient) -> None:
    body, headers = form(3, named=True)
    reply = await client.post("/v1/documents", content=body[:-20], headers=headers)
    assert reply.status_code == 400
    assert await nothing_stored(services)


@pytest.fixture
async def small(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """An api that takes files of 100 kB, requests of 300 kB and JSON of 50 kB."""
    limits = {"max_upload_bytes": 100_000, "max_request_bytes": 300_000, "max_body_json_bytes": 50_000}
    api = services.settings.api.model_copy(update=limits)
    app = create_app(
        Services(
            settings=services.settings.model_copy(update={"api": api}),
            ledger=services.ledger,
            jobs=services.jobs,
            blobs=services.blobs,
            intake=services.intake,
        )
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.mark.case(31)
@pytest.mark.parametrize("size", [100_001, 400_000])
async def test_a_file_or_request_over_the_limit_is_refused(
    services: Services, small: httpx.AsyncClient, size: int
) -> None:
    reply = await small.post("/v1/documents", files=files(("good.txt", b"good"), ("big.txt", b"x" * size)))
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert await nothing_stored(services)
    assert (await small.post("/v1/documents", files=files(("ok.txt", b"x" * 100_000)))).status_code == 202


@pytest.mark.case(31)
@pytest.mark.parametrize("declared", [None, "10", "-1", "1e3", "9" * 30])
async def test_a_body_is_counted_whatever_length_it_declares(
    services: Services, small: httpx.AsyncClient, declared: str | None
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
    assert await nothing_stored(services)


# --- idempotency ----------------------------------------------------------------------------------------------------


@pytest.mark.case(9)
async def test_a_hundred_uploads_with_one_key_are_one(services: Services, client: httpx.AsyncClient) -> None:
    body = {"documents": [{"name": "a.txt", "text": "hello"}]}
    headers = {"idempotency-key": "k1"}
    replies = await asyncio.gather(*(client.post("/v1/documents", json=body, headers=headers) for _ in range(100)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.text for reply in replies}) == 1
    assert await services.jobs.count(JobFilter()) == 1


@pytest.mark.case(9)
@pytest.mark.parametrize("way", ["json", "form"])
async def test_one_key_with_other_content_is_a_conflict(client: httpx.AsyncClient, way: str) -> None:
    def sent(text: str) -> dict[str, Any]:
        if way == "form":
            return {"files": files(("a.txt", text.encode()))}
        return {"json": {"documents": [{"name": "a.txt", "text": text}]}}

    headers = {"idempotency-key": "k1"}
    first = await client.post("/v1/documents", headers=headers, **sent("one"))
    again = await client.post("/v1/documents", headers=headers, **sent("one"))
    other = await client.post("/v1/documents", headers=headers, **sent("two"))
    assert (first.status_code, again.status_code, other.status_code) == (202, 202, 409)
    assert again.text == first.text
    assert other.headers["x-should-retry"] == "false"


@pytest.mark.case(2)
@pytest.mark.parametrize("way", ["json", "form"])
async def test_an_upload_whose_answer_was_lost_is_the_same_job_when_sent_again_to_another_process(
    services: Services, client: httpx.AsyncClient, way: str
) -> None:
    sent: dict[str, Any] = {"headers": {"idempotency-key": "k1"}}
    if way == "form":
        sent["files"] = files(("a.txt", b"hello"))
    else:
        sent["json"] = {"documents": [{"name": "a.txt", "text": "hello"}]}
    first = await client.post("/v1/documents", **sent)
    restarted: FastAPI = create_app(services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(restarted), base_url="http://localhost") as other:
        again = await other.post("/v1/documents", **sent)
    assert again.json()["documents"][0]["job_id"] == first.json()["documents"][0]["job_id"]
    assert await services.jobs.count(JobFilter()) == 1


@pytest.mark.case(2)
async def test_a_crash_between_ledger_and_queue_loses_nothing_that_was_promised(
    services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(_: Sequence[object]) -> None:
        raise asyncio.CancelledError

    body = {"documents": [{"name": "a.txt", "text": "hello"}]}
    with monkeypatch.context() as patch:
        patch.setattr(services.jobs, "enqueue", die)
        with pytest.raises(asyncio.CancelledError):
            await client.post("/v1/documents", json=body, headers={"idempotency-key": "k1"})
    again = await client.post("/v1/documents", json=body, headers={"idempotency-key": "k1"})
    (pending,) = await services.ledger.pending_versions()
    assert again.status_code == 202
    assert again.json()["documents"][0]["job_id"] == pending.job_id


async def test_the_spool_leaves_nothing_in_the_data_folder(
    services: Services, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await client.post("/v1/documents", files=files(("big.txt", b"x" * 3_000_000)))
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_many_first_uploads_at_once_make_one_default_collection(client: httpx.AsyncClient) -> None:
    bodies = [{"documents": [{"name": f"{i}", "text": f"text {i}"}]} for i in range(50)]
    replies = await asyncio.gather(*(client.post("/v1/documents", json=body) for body in bodies))
    assert {reply.status_code for reply in replies} == {202}
    (collection,) = (await client.get("/v1/collections")).json()["collections"]
    assert collection["name"] == "default"
