"""The older interface, as existing front ends call it."""

import base64
from typing import Any

import httpx
import pytest

from penstock.app import Services
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import Worker

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


async def finished(services: Services, client: httpx.AsyncClient, task_id: str, path: str) -> dict[str, Any]:
    await services.jobs.wait(task_id, timeout_s=100)
    found: dict[str, Any] = (await client.get(path + task_id)).json()
    return found


async def test_a_query_is_answered_under_both_addresses(
    services: Services, client: httpx.AsyncClient, worker: Worker
) -> None:
    task = (await client.post("/retrieve", json={"query": "Why?", "top_k": 3})).json()
    assert task["status"] == "queued"
    result = await finished(services, client, task["task_id"], "/result/")
    assert (result["status"], result["progress"], result["error"]) == ("finished", 100, None)
    assert result["result"]["text"] == "Yes [1]."
    assert await finished(services, client, task["task_id"], "/api/async/task/") == result


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_an_image_is_stored_beside_its_question(
    services: Services, client: httpx.AsyncClient, prefix: str
) -> None:
    body = {"query": "What is this?", "image_base64": prefix + base64.encodebytes(PNG).decode()}
    reply = await client.post("/api/async/analyze-image", json=body)
    assert reply.status_code == 202
    job = await services.jobs.get(reply.json()["task_id"])
    assert await services.blobs.get(job.payload["image_sha256"]) == PNG
    assert (await client.get(f"/api/async/task/{job.id}")).json()["progress"] == 0


BAD = {
    "url": ({"query": "x", "image_url": "http://169.254.169.254/"}, 422),
    "no-image": ({"query": "x"}, 422),
    "no-base64": ({"query": "x", "image_base64": "###"}, 422),
    "empty": ({"query": "x", "image_base64": ""}, 422),
    "text": ({"query": "x", "image_base64": base64.b64encode(b"hello").decode()}, 415),
    "svg": ({"query": "x", "image_base64": base64.b64encode(b"<svg onload='x'/>").decode()}, 415),
    "non-ascii": ({"query": "x", "image_base64": "ä"}, 422),
    "too-large": ({"query": "x", "image_base64": "A" * 14_500_000}, 413),
    "long-query": ({"query": "x" * 8001, "image_base64": base64.b64encode(PNG).decode()}, 413),
    "no-query": ({"image_base64": base64.b64encode(PNG).decode()}, 422),
}


@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD.keys())
async def test_a_bad_image_is_refused_and_nothing_is_stored(
    services: Services, client: httpx.AsyncClient, body: dict[str, str], status: int
) -> None:
    reply = await client.post("/api/async/analyze-image", json=body)
    assert reply.status_code == status, reply.text
    assert [blob async for blob in services.blobs.list()] == []
    assert await services.jobs.count(JobFilter()) == 0


async def test_a_task_is_cancelled_and_one_that_failed_says_why(
    services: Services, client: httpx.AsyncClient, worker: Worker
) -> None:
    hanging = (await client.post("/retrieve", json={"query": "hang"})).json()["task_id"]
    await client.delete(f"/api/async/task/{hanging}")
    assert (await finished(services, client, hanging, "/result/"))["status"] == "cancelled"
    failing = (await client.post("/retrieve", json={"query": "fail"})).json()["task_id"]
    result = await finished(services, client, failing, "/result/")
    assert (result["status"], result["error"], result["result"]) == ("failed", "The model is away.", None)


async def test_a_documents_job_is_no_task(client: httpx.AsyncClient) -> None:
    added = await client.post("/v1/documents", json={"documents": [{"name": "a", "text": "b"}]})
    job_id = added.json()["documents"][0]["job_id"]
    assert (await client.get(f"/api/async/task/{job_id}")).status_code == 404
    assert (await client.delete(f"/api/async/task/{job_id}")).status_code == 404


async def test_counts_and_health(client: httpx.AsyncClient) -> None:
    await client.post("/retrieve", json={"query": "Why?"})
    counts = (await client.get("/api/queue/stats")).json()
    assert counts == {"queued": 1, "started": 0, "failed": 0, "workers": 0}
    assert (await client.get("/api/health")).json()["status"] == "degraded"
