"""Event streams over a real connection: their order, resuming, and clients that leave."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from penstock.api.state import ApiState
from penstock.app import Services
from penstock.jobs.base import JobFilter
from penstock.jobs.worker import Worker
from penstock.types import Job, JobState


async def events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The stream's events as `{"event", "id", "data"}`; comments as `{"comment"}`."""
    fields: dict[str, Any] = {}
    async for line in reply.aiter_lines():
        if not line and fields:
            yield fields
            fields = {}
        elif line.startswith(":"):
            yield {"comment": line[1:].strip()}
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = json.loads(value) if name == "data" else value


async def until_final(services: Services) -> Job:
    """The one job there is, once it has ended."""
    (job,) = (await services.jobs.list(JobFilter())).jobs
    return await services.jobs.wait(job.id, timeout_s=100)


Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
Running = Callable[[], Awaitable[str]]


@pytest.fixture
def running(services: Services, until: Until) -> Running:
    """Returns the id of the one job there is once it runs."""

    async def running() -> str:
        await until(lambda: _any(JobFilter(states=frozenset({JobState.RUNNING}))))
        return (await services.jobs.list(JobFilter())).jobs[0].id

    async def _any(where: JobFilter) -> bool:
        return bool(await services.jobs.count(where))

    return running


@pytest.fixture
async def wire(server: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=100) as client:
        yield client


async def test_a_streamed_question_brings_progress_text_and_answer(wire: httpx.AsyncClient, worker: Worker) -> None:
    body = {"question": "stream", "stream": True}
    async with wire.stream("POST", "/v1/questions", json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["location"].startswith("/v1/jobs/job_")
        seen = [one async for one in events(reply) if "event" in one]
    kinds = [one["event"] for one in seen]
    assert kinds[-1] == "answer"
    assert "progress" in kinds
    assert "".join(one["data"]["text"] for one in seen if one["event"] == "delta") == "One two three."
    assert seen[-1]["data"]["answer"]["text"] == "Yes [1]."
    ids = [int(one["id"]) for one in seen]
    assert ids == sorted(ids)


async def test_a_streamed_question_that_fails_ends_in_an_error(wire: httpx.AsyncClient, worker: Worker) -> None:
    async with wire.stream("POST", "/v1/questions", json={"question": "fail", "stream": True}) as reply:
        seen = [one async for one in events(reply) if "event" in one]
    assert seen[-1]["event"] == "error"
    assert seen[-1]["data"]["error"]["code"] == "provider_unreachable"


async def test_a_client_that_takes_json_alone_follows_the_jobs_events(wire: httpx.AsyncClient, worker: Worker) -> None:
    accept = {"accept": "application/json"}
    asked = await wire.post("/v1/questions", json={"question": "stream", "stream": True}, headers=accept)
    assert asked.status_code == 202
    async with wire.stream("GET", asked.headers["location"] + "/events") as reply:
        seen = [one async for one in events(reply) if "event" in one]
    assert "".join(one["data"]["text"] for one in seen if one["event"] == "delta") == "One two three."
    assert (seen[-1]["event"], seen[-1]["data"]["state"]) == ("state", "succeeded")


async def test_a_job_is_followed_from_where_the_reader_was(
    services: Services, wire: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = (await wire.post("/v1/questions", json={"question": "stream"})).json()["job_id"]
    await services.jobs.wait(job_id, timeout_s=100)
    address = f"/v1/jobs/{job_id}/events"
    async with wire.stream("GET", address) as reply:
        everything = [one async for one in events(reply) if "event" in one]
    for seen, one in enumerate(everything[:-1], start=1):
        async with wire.stream("GET", address, headers={"last-event-id": one["id"]}) as reply:
            assert [one async for one in events(reply) if "event" in one] == everything[seen:]
        async with wire.stream("GET", address, params={"after": one["id"]}) as reply:
            assert [one async for one in events(reply) if "event" in one] == everything[seen:]
    ended = await wire.get(address, headers={"last-event-id": everything[-1]["id"]})
    assert (ended.status_code, ended.content) == (204, b"")


@pytest.mark.case(26)
@pytest.mark.parametrize("body", [{"stream": True}, {"wait_s": 30}], ids=["stream", "wait"])
async def test_a_question_whose_asker_leaves_is_cancelled(
    services: Services, wire: httpx.AsyncClient, worker: Worker, running: Running, body: dict[str, Any]
) -> None:
    asking = asyncio.create_task(wire.post("/v1/questions", json={"question": "hang", **body}))
    await running()
    asking.cancel()
    assert (await until_final(services)).state == "cancelled"


@pytest.mark.case(26)
async def test_a_search_whose_client_leaves_is_cancelled(
    services: Services, wire: httpx.AsyncClient, until: Until
) -> None:
    async def waiting() -> bool:
        return bool(await services.jobs.count(JobFilter()))

    searching = asyncio.create_task(wire.post("/v1/search", json={"query": "anything"}))
    await until(waiting)
    searching.cancel()
    assert (await until_final(services)).state == "cancelled"


@pytest.mark.case(26)
async def test_a_question_that_somebody_else_wants_goes_on(
    services: Services, wire: httpx.AsyncClient, worker: Worker, running: Running
) -> None:
    body = {"question": "hang", "stream": True}
    headers = {"idempotency-key": "k1"}
    await wire.post("/v1/questions", json=body, headers={**headers, "accept": "application/json"})
    job_id = await running()
    async with wire.stream("POST", "/v1/questions", json=body, headers=headers):
        pass
    async with wire.stream("GET", f"/v1/jobs/{job_id}/events"):
        pass
    await asyncio.sleep(0.1)
    job = await services.jobs.get(job_id)
    assert (job.state, job.cancel_requested) == ("running", False)


@pytest.mark.case(26)
async def test_the_last_of_two_askers_to_leave_cancels(
    services: Services, app: FastAPI, wire: httpx.AsyncClient, worker: Worker, running: Running, until: Until
) -> None:
    state: ApiState = app.state.penstock
    body = {"question": "hang", "stream": True}
    headers = {"idempotency-key": "k1"}
    async with wire.stream("POST", "/v1/questions", json=body, headers=headers) as first:
        job_id = await running()
        async with wire.stream("POST", "/v1/questions", json=body, headers=headers) as second:
            assert second.headers["location"] == first.headers["location"]

        async def alone() -> bool:
            return state.watchers.alone(job_id)

        await until(alone)
        assert not (await services.jobs.get(job_id)).cancel_requested
    assert (await services.jobs.wait(job_id, timeout_s=100)).state == "cancelled"


@pytest.mark.case(26)
async def test_many_clients_that_leave_leave_nothing_behind(
    services: Services, app: FastAPI, wire: httpx.AsyncClient, worker: Worker, until: Until
) -> None:
    state: ApiState = app.state.penstock
    active = JobFilter(states=frozenset({JobState.QUEUED, JobState.RUNNING}))

    async def come_and_go() -> None:
        async with wire.stream("POST", "/v1/questions", json={"question": "hang", "stream": True}):
            pass

    async def quiet() -> bool:
        in_progress = state.metrics.registry.get_sample_value("penstock_http_requests_in_progress")
        return not in_progress and not await services.jobs.count(active)

    await come_and_go()
    await until(quiet)
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        await asyncio.gather(*(come_and_go() for _ in range(20)))
    await until(quiet)
    assert len(asyncio.all_tasks()) <= tasks + 2
    assert state.metrics.registry.get_sample_value("penstock_jobs_abandoned_total") == 101
