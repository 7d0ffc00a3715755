"""A tenant's key reaches nothing of another tenant: what is not yours is not there."""

import httpx
import pytest
from fastapi import FastAPI

from penstock.app import Services
from penstock.jobs.base import JobFilter

pytestmark = pytest.mark.case(34)

BODIES = {"/v1/collections/{name}/copy": {"name": "mine"}, "/v1/collections/{name}/reindex": {}}
"""What a route wants to read before it looks for what its path names."""


@pytest.fixture
async def keys(services: Services) -> dict[str, dict[str, str]]:
    """Headers by tenant."""
    made = {tenant: await services.ledger.create_api_key(tenant, tenant, ()) for tenant in ("ann", "bob")}
    return {tenant: {"x-api-key": secret} for tenant, (_, secret) in made.items()}


@pytest.fixture
async def anns(client: httpx.AsyncClient, keys: dict[str, dict[str, str]]) -> dict[str, str]:
    """What Ann has: one of everything, by the name of its path parameter."""
    await client.post("/v1/collections", headers=keys["ann"], json={"name": "anns"})
    upload = {"collection": "anns", "documents": [{"name": "a.txt", "text": "Ann's secret"}]}
    added = (await client.post("/v1/documents", headers=keys["ann"], json=upload)).json()["documents"][0]
    asked = await client.post("/v1/questions", headers=keys["ann"], json={"question": "Why?", "collection": "anns"})
    body = {"urls": ["https://example.com/a.txt"], "collection": "anns"}
    batch = await client.post("/v1/batches", headers=keys["ann"], json=body)
    return {
        "name": "anns",
        "batch_id": batch.json()["id"],
        "document_id": added["document"]["id"],
        "job_id": added["job_id"],
        "task_id": asked.json()["job_id"],
    }


async def test_every_route_that_takes_an_id_says_not_found_to_a_foreign_key(
    app: FastAPI, client: httpx.AsyncClient, keys: dict[str, dict[str, str]], anns: dict[str, str]
) -> None:
    seen = 0
    for path, operations in app.openapi()["paths"].items():
        if "{" not in path:
            continue
        for method in operations:
            seen += 1
            address = path.format(**anns)
            body = BODIES.get(path)
            foreign = await client.request(method, address, headers=keys["bob"], json=body)
            assert foreign.status_code == 404, (method, address)
            address = path.format(**dict.fromkeys(anns, "unknown"))
            unknown = await client.request(method, address, headers=keys["bob"], json=body)
            assert unknown.status_code == 404
            assert foreign.json()["code"] == unknown.json()["code"]
    assert seen == 20
    assert (await client.get("/v1/documents/" + anns["document_id"], headers=keys["ann"])).status_code == 200


async def test_lists_and_counts_show_nothing_of_another_tenant(
    client: httpx.AsyncClient, keys: dict[str, dict[str, str]], anns: dict[str, str]
) -> None:
    for field in ("collections", "documents", "batches", "jobs"):
        path = f"/v1/{field}"
        assert (await client.get(path, headers=keys["bob"])).json()[field] == []
        assert (await client.get(path, headers=keys["ann"])).json()[field] != []
    counted = await client.post("/v1/jobs/cancel", headers=keys["bob"], json={})
    assert counted.json() == {"matched": 0, "changed": 0}


async def test_bulk_verbs_leave_other_tenants_alone(
    services: Services, client: httpx.AsyncClient, keys: dict[str, dict[str, str]], anns: dict[str, str]
) -> None:
    before = await services.jobs.count(JobFilter(tenant="ann"))
    await client.post("/v1/jobs/cancel", headers=keys["bob"], json={})
    assert (await services.jobs.get(anns["job_id"])).state == "queued"
    mine = await client.post("/v1/jobs/cancel", headers=keys["ann"], json={})
    assert mine.json() == {"matched": before, "changed": before}


async def test_a_foreign_collection_cannot_be_asked_or_filled(
    client: httpx.AsyncClient, keys: dict[str, dict[str, str]], anns: dict[str, str]
) -> None:
    upload = {"collection": "anns", "documents": [{"name": "b.txt", "text": "Bob's"}]}
    for path, body in (
        ("/v1/questions", {"question": "Why?", "collection": "anns"}),
        ("/v1/search", {"query": "Why?", "collection": "anns"}),
        ("/v1/documents", upload),
    ):
        assert (await client.post(path, headers=keys["bob"], json=body)).status_code == 404


async def test_one_idempotency_key_of_two_tenants_is_two_keys(
    client: httpx.AsyncClient, keys: dict[str, dict[str, str]]
) -> None:
    jobs = set()
    for tenant in ("ann", "bob"):
        headers = {**keys[tenant], "idempotency-key": "same"}
        jobs.add((await client.post("/v1/questions", headers=headers, json={"question": "Why?"})).json()["job_id"])
    assert len(jobs) == 2


@pytest.mark.parametrize("limit", [0, -1, 1001, 1_000_000_000])
async def test_a_limit_cannot_be_forged(client: httpx.AsyncClient, limit: int) -> None:
    assert (await client.get("/v1/documents", params={"limit": limit})).status_code == 422
    assert (await client.post("/v1/search", json={"query": "Why?", "limit": limit})).status_code == 422
