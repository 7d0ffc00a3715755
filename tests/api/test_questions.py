"""Asking over HTTP: later, or at once; errors, limits, idempotency."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

from penstock.app import Services
from penstock.errors import Overloaded
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import Worker
from penstock.pipeline.requests import QuestionRequest, decode

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


async def test_a_question_is_accepted_and_answered_later(
    services: Services, client: httpx.AsyncClient, worker: Worker
) -> None:
    asked = await client.post("/v1/questions", json={"question": "Why?"})
    assert asked.status_code == 202
    assert asked.json()["answer"] is None
    job = await services.jobs.wait(asked.json()["job_id"], timeout_s=100)
    assert (await client.get(asked.headers["location"])).json()["result"]["text"] == job.result["text"] == "Yes [1]."


async def test_the_answer_comes_in_the_same_call_when_it_is_waited_for(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    answered = await client.post("/v1/questions", json={"question": "Why?", "wait_s": 10})
    assert answered.status_code == 200
    assert (answered.json()["state"], answered.json()["answer"]["text"]) == ("succeeded", "Yes [1].")


async def test_a_wait_that_is_too_short_gives_the_job(client: httpx.AsyncClient, worker: Worker) -> None:
    waited = await client.post("/v1/questions", json={"question": "hang", "wait_s": 0.05})
    assert (waited.status_code, waited.json()["answer"]) == (202, None)
    job = (await client.get(waited.headers["location"])).json()
    assert (job["state"], job["cancel_requested"]) == ("running", False)


async def test_what_a_question_failed_with_is_the_answers_status(client: httpx.AsyncClient, worker: Worker) -> None:
    failed = await client.post("/v1/questions", json={"question": "fail", "wait_s": 10})
    assert (failed.status_code, failed.json()["code"]) == (502, "provider_unreachable")
    assert failed.headers["content-type"] == "application/problem+json"


async def test_every_field_reaches_the_job(services: Services, client: httpx.AsyncClient) -> None:
    await client.post("/v1/collections", json={"name": "codes"})
    body = {"question": "Why?", "collection": "codes", "limit": 3, "filter": {"city": "Graz"}, "timeout_s": 30}
    now = time.time()
    asked = await client.post("/v1/questions", json=body)
    job = await services.jobs.get(asked.json()["job_id"])
    assert decode(QuestionRequest, job.payload) == QuestionRequest(
        collection="codes", question="Why?", limit=3, filter={"city": "Graz"}
    )
    assert (job.kind, job.priority, job.time_limit_s) == ("question", "interactive", 30)
    assert job.deadline is not None
    assert now + 29 < job.deadline < now + 40


BAD = {
    "too-long": ({"question": "x" * 8001}, 413, "too_large"),
    "a-megabyte": ({"question": "x" * 1024 * 1024}, 413, "too_large"),
    "empty": ({"question": ""}, 422, "invalid_input"),
    "blank": ({"question": " \n"}, 422, "invalid_input"),
    "nul": ({"question": "a\0b"}, 422, "invalid_input"),
    "missing": ({}, 422, "invalid_input"),
    "number": ({"question": 3}, 422, "invalid_input"),
    "number-as-text": ({"question": "Why?", "limit": "3"}, 422, "invalid_input"),
    "unknown-field": ({"question": "Why?", "model": "gpt"}, 422, "invalid_input"),
    "unknown-collection": ({"question": "Why?", "collection": "nowhere"}, 404, "not_found"),
    "bad-filter": ({"question": "Why?", "filter": {"year": {"almost": 3}}}, 422, "invalid_input"),
    "deep-filter": ({"question": "Why?", "filter": {"not": {"not": {"not": {"not": {"not": {"not": {"not": {"not": {
        "a": 1}}}}}}}}}}, 422, "invalid_input"),
    "negative-wait": ({"question": "Why?", "wait_s": -1}, 422, "invalid_input"),
    "no-time": ({"question": "Why?", "timeout_s": 0}, 422, "invalid_input"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code"), BAD.values(), ids=BAD.keys())
async def test_a_bad_question_is_refused_and_not_enqueued(
    services: Services, client: httpx.AsyncClient, body: dict[str, object], status: int, code: str
) -> None:
    reply = await client.post("/v1/questions", json=body)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert len(reply.text) < 1000
    assert await services.jobs.count(JobFilter()) == 0


@pytest.mark.case(9)
async def test_a_hundred_questions_with_one_key_are_one_job(services: Services, client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k1"}
    ask = {"question": "Why?"}
    replies = await asyncio.gather(*(client.post("/v1/questions", json=ask, headers=headers) for _ in range(100)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({reply.text for reply in replies}) == 1
    assert await services.jobs.count(JobFilter()) == 1


@pytest.mark.case(9)
async def test_one_key_with_another_question_is_a_conflict_not_to_be_retried(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "k1"}
    await client.post("/v1/questions", json={"question": "Why?"}, headers=headers)
    other = await client.post("/v1/questions", json={"question": "How?"}, headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut".encode("latin-1").decode("latin-1")])
async def test_a_strange_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    headers = httpx.Headers([(b"idempotency-key", key.encode("latin-1"))])
    reply = await client.post("/v1/questions", json={"question": "Why?"}, headers=headers)
    assert reply.status_code == 422


async def test_a_full_queue_says_when_to_come_back(
    services: Services, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> None:
        raise Overloaded("The queue is full.", retry_after_s=7.2)

    monkeypatch.setattr(services.jobs, "enqueue", full)
    reply = await client.post("/v1/questions", json={"question": "Why?"})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "8")


async def test_hits_come_in_the_same_call(client: httpx.AsyncClient, worker: Worker) -> None:
    found = await client.post("/v1/search", json={"query": "escape route", "mode": "fulltext", "limit": 5})
    assert found.status_code == 200
    assert found.json()["hits"] == []
    assert found.json()["job_id"]


async def test_a_search_without_a_worker_says_so(services: Services, client: httpx.AsyncClient) -> None:
    found = await client.post("/v1/search", json={"query": "escape route", "timeout_s": 0.1})
    assert (found.status_code, found.json()["code"]) == (503, "unavailable")
    assert int(found.headers["retry-after"]) >= 1
    (job,) = (await services.jobs.list(JobFilter())).jobs
    assert job.state == "cancelled"


@pytest.mark.case(20)
async def test_a_search_while_the_index_is_away_says_why_and_when_to_come_back(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    found = await client.post("/v1/search", json={"query": "away"})
    assert (found.status_code, found.json()["code"]) == (503, "index_unavailable")
    assert "refused" in found.json()["detail"]
    assert int(found.headers["retry-after"]) >= 1


@pytest.mark.case(20)
async def test_a_search_in_an_index_that_does_not_answer_ends(
    services: Services, client: httpx.AsyncClient, worker: Worker, until: Until
) -> None:
    found = await client.post("/v1/search", json={"query": "slow", "timeout_s": 2})
    assert found.status_code in {503, 504}
    (job,) = (await services.jobs.list(JobFilter())).jobs

    async def ended() -> bool:
        return (await services.jobs.get(job.id)).state.final

    await until(ended)


@pytest.mark.parametrize("body", [{"query": ""}, {"query": "x" * 8001}, {"query": "x", "mode": "magic"}, {"q": "x"}])
async def test_a_bad_search_is_refused(services: Services, client: httpx.AsyncClient, body: dict[str, str]) -> None:
    assert (await client.post("/v1/search", json=body)).status_code in {413, 422}
    assert await services.jobs.count(JobFilter()) == 0
