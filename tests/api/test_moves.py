"""What moves a whole collection: reindex and copy."""

import httpx
import pytest

from penstock.app import Services
from penstock.types import CollectionOptions


async def test_a_reindex_is_a_job(client: httpx.AsyncClient, services: Services) -> None:
    await services.ledger.create_collection("default", "docs", CollectionOptions())
    reply = await client.post("/v1/collections/docs/reindex", json={})
    assert reply.status_code == 202
    job = reply.json()
    assert (job["kind"], job["state"]) == ("reindex", "queued")
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    generation = await services.ledger.generations.building(job["payload"]["generation_id"])
    assert generation is not None
    assert generation.job_id == job["id"]
    assert (await client.post("/v1/collections/docs/reindex", json={})).status_code == 409
    await client.post(f"/v1/jobs/{job['id']}/cancel")
    assert await services.ledger.generations.building(generation.id) is None
    assert (await client.post("/v1/collections/docs/reindex", json={"engine": ""})).status_code == 202


@pytest.mark.parametrize("body", [{"embedding_model": "nowhere"}, {"engine": "nowhere"}, {"model": "x"}], ids=str)
async def test_only_models_and_engines_of_the_settings(
    client: httpx.AsyncClient, services: Services, body: dict[str, str]
) -> None:
    await services.ledger.create_collection("default", "docs", CollectionOptions())
    assert (await client.post("/v1/collections/docs/reindex", json=body)).status_code in {400, 422}
    assert await services.ledger.generations.all_building() == []


async def test_a_copy_is_a_batch(client: httpx.AsyncClient, services: Services) -> None:
    options = CollectionOptions(chunk_tokens=100)
    await services.ledger.create_collection("default", "docs", options)
    reply = await client.post("/v1/collections/docs/copy", json={"name": "copy"})
    assert reply.status_code == 202
    [source] = await services.ledger.batches.sources(reply.json()["id"])
    assert (source.kind, source.name) == ("collection", "docs")
    assert (await services.ledger.get_collection("default", "copy")).options == options
    assert (await client.post("/v1/collections/docs/copy", json={"name": "copy"})).status_code == 409
    assert (await client.post("/v1/collections/nowhere/copy", json={"name": "other"})).status_code == 404


async def test_a_collection_goes_out_and_comes_back(client: httpx.AsyncClient, services: Services) -> None:
    await services.ledger.create_collection("default", "docs", CollectionOptions(chunk_tokens=100))
    body = {"collection": "docs", "documents": [{"name": "a.txt", "text": "Water."}]}
    await client.post("/v1/documents", json=body)
    reply = await client.get("/v1/collections/docs/export")
    assert reply.status_code == 200
    assert reply.headers["content-disposition"].startswith("attachment")
    files = {"files": ("docs.tar", reply.content)}
    made = await client.post("/v1/collections/import", files=files, data={"name": "back"})
    assert made.status_code == 202
    assert made.json()["collection"] == "back"
    assert (await services.ledger.get_collection("default", "back")).options.chunk_tokens == 100
    assert (await client.post("/v1/collections/import", files=files, data={"name": "back"})).status_code == 409
    wrong = {"files": ("docs.tar", b"not a tar")}
    assert (await client.post("/v1/collections/import", files=wrong, data={"name": "x"})).status_code == 422
    assert (await client.post("/v1/collections/import", files=files)).status_code == 422
    assert (await client.post("/v1/collections/import", json={})).status_code == 415
    assert [one.name for one in await services.ledger.list_collections("default")] == ["back", "docs"]
