"""Probes and metrics."""

import httpx
import pytest

from penstock.app import Services
from penstock.errors import Unavailable
from penstock.jobs.worker import Worker


async def ready(client: httpx.AsyncClient) -> tuple[int, dict[str, str]]:
    reply = await client.get("/readyz")
    return reply.status_code, reply.json()["checks"]


async def test_the_process_lives_whatever_is_missing(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json()["status"] == "ok"


async def test_ready_with_a_ready_worker(client: httpx.AsyncClient, worker: Worker) -> None:
    while (await ready(client))[1]["workers"] != "ok":  # a worker is ready a moment before it is known to be
        await client.get("/healthz")
    assert await ready(client) == (200, dict.fromkeys(("ledger", "jobs", "blobs", "workers"), "ok"))


async def test_not_ready_without_a_worker(client: httpx.AsyncClient) -> None:
    status, checks = await ready(client)
    assert (status, checks["workers"], checks["ledger"]) == (503, "no worker is running", "ok")


@pytest.mark.parametrize("part", ["ledger", "jobs", "blobs"])
async def test_not_ready_names_what_does_not_answer(
    services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def away() -> None:
        raise Unavailable("It is away.")

    monkeypatch.setattr(getattr(services, part), "ping", away)
    status, checks = await ready(client)
    assert (status, checks[part]) == (503, "It is away.")


async def test_metrics_tell_requests_by_route_and_queues_by_class(client: httpx.AsyncClient, worker: Worker) -> None:
    await client.get("/v1/documents/doc_1")
    await client.get("/v1/documents/doc_2")
    await client.get("/nowhere/else")
    await client.post("/v1/documents", json={"documents": [{"name": "a", "text": "b"}]})
    text = (await client.get("/metrics")).text
    assert 'penstock_http_requests_total{method="GET",route="/v1/documents/{document_id}",status="404"} 2.0' in text
    assert 'route="unknown",status="404"} 1.0' in text
    assert "penstock_documents_accepted_total 1.0" in text
    assert 'penstock_queue_jobs{priority="bulk",state="dead"} 0.0' in text
    assert 'penstock_workers{ready="true"}' in text
    assert "process_resident_memory_bytes" in text


async def test_a_store_that_is_away_is_a_503_to_be_tried_again(
    services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise Unavailable("The ledger is away.", retry_after_s=2.5)

    monkeypatch.setattr(services.ledger, "list_collections", away)
    reply = await client.get("/v1/collections")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")


async def test_what_nobody_foresaw_is_a_500_that_tells_nothing_but_where_to_look(
    services: Services,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise LookupError("the inside")

    monkeypatch.setattr(services.ledger, "list_collections", broken)
    reply = await client.get("/v1/collections", headers={"x-request-id": "abc-1"})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "abc-1"
    assert "inside" not in reply.text
    assert "abc-1" in caplog.text
    assert "the inside" in caplog.text


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a\u00e9", "<script>"])
async def test_a_strange_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    headers = httpx.Headers([(b"x-request-id", given.encode("latin-1"))])
    assert (await client.get("/healthz", headers=headers)).headers["x-request-id"] != given
