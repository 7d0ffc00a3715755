"""Jobs over HTTP: lists, cancel, retry, one by one and in bulk; queues and workers."""

from collections.abc import Awaitable, Callable

import httpx
import pytest

from penstock.app import Services
from penstock.jobs.base import JobFilter, Outcome
from penstock.jobs.worker import Worker
from penstock.types import Failure, JobState

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def ask(client: httpx.AsyncClient, count: int) -> list[str]:
    """Questions that nobody answers; their jobs' ids, in the order they were asked."""
    replies = [await client.post("/v1/questions", json={"question": f"{i}?"}) for i in range(count)]
    return [reply.json()["job_id"] for reply in replies]


async def add(client: httpx.AsyncClient, *names: str) -> list[dict[str, str]]:
    body = {"documents": [{"name": name, "text": name} for name in names]}
    return [one["document"] for one in (await client.post("/v1/documents", json=body)).json()["documents"]]


async def test_jobs_are_listed_newest_first_page_by_page(client: httpx.AsyncClient) -> None:
    ids = await ask(client, 5)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["jobs"]]
        if (cursor := page["cursor"]) is None:
            break
    assert seen == ids[::-1]


async def test_jobs_are_filtered(client: httpx.AsyncClient) -> None:
    (asked,) = await ask(client, 1)
    (document,) = await add(client, "a.txt")
    cancelled = await client.post(f"/v1/jobs/{asked}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    expected = {
        "kind=ingest": [document["job_id"]],
        "kind=ingest&kind=question": [document["job_id"], asked],
        "state=cancelled": [asked],
        "state=queued&state=running": [document["job_id"]],
        "priority=interactive": [asked],
        f"subject={document['version_id']}": [document["job_id"]],
        "kind=nothing": [],
    }
    for query, ids in expected.items():
        found = (await client.get(f"/v1/jobs?{query}")).json()["jobs"]
        assert [job["id"] for job in found] == ids, query


@pytest.mark.parametrize("query", ["state=odd", "priority=urgent", "limit=0", "limit=1001", "cursor=odd", "limit=x"])
async def test_a_bad_filter_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/v1/jobs?{query}")).status_code == 422


async def test_a_cancelled_document_is_cancelled_in_the_ledger_and_can_be_retried(
    services: Services, client: httpx.AsyncClient
) -> None:
    (document,) = await add(client, "a.txt")
    await client.post(f"/v1/jobs/{document['job_id']}/cancel")
    assert (await services.ledger.get_document("default", document["id"])).status == "cancelled"
    retried = await client.post(f"/v1/jobs/{document['job_id']}/retry")
    assert retried.json()["state"] == "queued"
    assert (await services.ledger.get_document("default", document["id"])).status == "pending"
    again = await client.post(f"/v1/jobs/{document['job_id']}/retry")
    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")


async def test_bulk_cancel_counts_first_and_then_cancels_what_matches(
    services: Services, client: httpx.AsyncClient
) -> None:
    await ask(client, 3)
    await add(client, "a.txt", "b.txt")
    selection = {"kinds": ["question"]}
    counted = await client.post("/v1/jobs/cancel", json={**selection, "dry_run": True})
    assert counted.json() == {"matched": 3, "changed": 0}
    assert await services.jobs.count(JobFilter(states=frozenset({JobState.CANCELLED}))) == 0
    done = await client.post("/v1/jobs/cancel", json=selection)
    assert done.json() == {"matched": 3, "changed": 3}
    assert (await client.post("/v1/jobs/cancel", json={"states": ["failed"]})).json() == {"matched": 0, "changed": 0}
    assert len((await client.get("/v1/jobs?state=queued")).json()["jobs"]) == 2


async def test_bulk_retry_takes_failed_jobs_and_their_documents(services: Services, client: httpx.AsyncClient) -> None:
    first, second, deleted = await add(client, "a.txt", "b.txt", "c.txt")
    failure = Failure(code="parse_failed", message="Broken.")
    for job in await services.jobs.lease("w", kinds=["ingest"], n=3):
        await services.ledger.fail_version(job.subject or "", failure)
        await services.jobs.finish([(job.id, job.attempt, Outcome(failure=failure))])
    assert (await client.get(f"/v1/documents/{first['id']}")).json()["job"]["error"]["code"] == "parse_failed"
    await client.delete(f"/v1/documents/{deleted['id']}")
    counted = await client.post("/v1/jobs/retry", json={"kinds": ["ingest"], "dry_run": True})
    assert counted.json() == {"matched": 3, "changed": 0}
    done = await client.post("/v1/jobs/retry", json={"kinds": ["ingest"]})
    assert done.json() == {"matched": 3, "changed": 2}
    pending = await client.get("/v1/documents", params={"status": "pending"})
    assert {one["id"] for one in pending.json()["documents"]} == {first["id"], second["id"]}


async def test_queues_and_workers_are_shown(client: httpx.AsyncClient, worker: Worker, until: Until) -> None:
    async def registered() -> bool:
        return bool((await client.get("/v1/workers")).json()["workers"])

    queues = (await client.get("/v1/queues")).json()["queues"]
    assert [queue["priority"] for queue in queues] == ["interactive", "normal", "bulk"]
    await until(registered)
    (seen,) = (await client.get("/v1/workers")).json()["workers"]
    assert seen["id"] == worker.id
