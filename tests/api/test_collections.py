"""Making, listing and deleting collections over HTTP."""

import httpx


async def test_a_collection_is_made_listed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/collections", json={"name": "codes", "chunk_tokens": 128, "chunk_overlap": 16})
    assert made.status_code == 201
    assert made.json()["options"]["chunk_tokens"] == 128
    assert [one["name"] for one in (await client.get("/v1/collections")).json()["collections"]] == ["codes"]
    assert (await client.delete("/v1/collections/codes")).json()["id"] == made.json()["id"]
    assert (await client.get("/v1/collections/codes")).status_code == 404


async def test_a_taken_name_is_a_conflict_that_must_not_be_retried(client: httpx.AsyncClient) -> None:
    await client.post("/v1/collections", json={"name": "codes"})
    again = await client.post("/v1/collections", json={"name": "codes"})
    assert again.status_code == 409
    assert again.headers["x-should-retry"] == "false"


async def test_an_overlap_beyond_half_a_chunk_is_refused(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/collections", json={"name": "codes", "chunk_tokens": 64, "chunk_overlap": 60})
    assert refused.status_code == 422
    assert "chunk_overlap" in refused.json()["detail"]


async def test_a_question_to_a_collection_that_was_deleted_is_refused_at_once(client: httpx.AsyncClient) -> None:
    await client.post("/v1/collections", json={"name": "codes"})
    question = {"question": "How wide?", "collection": "codes"}
    assert (await client.post("/v1/questions", json=question)).status_code == 202
    await client.delete("/v1/collections/codes")
    assert (await client.post("/v1/questions", json=question)).status_code == 404
