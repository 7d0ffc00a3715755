"""`Idempotency-Key` on uploads, and what a crash in the middle of one leaves."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from penstock.api.main import create_app
from penstock.app import Services
from penstock.errors import Overloaded
from penstock.jobs.base import JobFilter


def files(*named: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", one) for one in named]


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
    restarted = create_app(services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(restarted), base_url="http://localhost") as other:
        again = await other.post("/v1/documents", **sent)
        sent_other = {"documents": [{"name": "a.txt", "text": "something else"}]}
        conflict = await other.post("/v1/documents", json=sent_other, headers=sent["headers"])
    assert again.text == first.text
    assert conflict.status_code == 409
    assert await services.jobs.count(JobFilter()) == 1


async def test_a_refused_upload_leaves_its_key_free(
    services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Sequence[object]) -> None:
        raise Overloaded("full", retry_after_s=3)

    def upload(text: str) -> Any:
        body = {"documents": [{"name": "a.txt", "text": text}]}
        return client.post("/v1/documents", json=body, headers={"idempotency-key": "k1"})

    with monkeypatch.context() as patch:
        patch.setattr(services.jobs, "enqueue", refuse)
        refused = await upload("one")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert (await upload("two")).status_code == 202


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
