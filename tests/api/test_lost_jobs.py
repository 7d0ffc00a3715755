"""A job store that was wiped while callers wait: they are told so, and nobody waits for ever."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.api.main import create_app
from penstock.api.promises import KEPT_S, Promises
from penstock.app import Services
from penstock.jobs import open_store
from penstock.jobs.base import JobFilter
from penstock.pipeline.intake import Intake
from penstock.types import Job, JobState, Priority


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def forgetful(services: Services, file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    monkeypatch.setattr("penstock.jobs.base._LOOK_AGAIN_S", 0.05)
    async with open_store(f"sqlite:///{file}") as jobs:
        yield replace(services, jobs=jobs, intake=Intake(services.ledger, jobs))


@pytest.mark.case(15)
@pytest.mark.parametrize("how", [{"wait_s": 20}, {"stream": True}])
async def test_a_question_in_flight_ends_as_lost(forgetful: Services, file: Path, how: dict[str, Any]) -> None:
    app = create_app(forgetful)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        asking = asyncio.create_task(client.post("/v1/questions", json={"question": "Who?", **how}))
        while not await forgetful.jobs.count(JobFilter()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with closing(sqlite3.connect(file)) as wiping:
            wiping.execute("DELETE FROM job")
            wiping.commit()
        reply = await asking
    if "stream" in how:
        assert "event: error" in reply.text
        assert '"code":"lost"' in reply.text
    else:
        assert (reply.status_code, reply.json()["code"]) == (503, "lost")


@pytest.mark.case(15)
async def test_a_question_that_is_asked_after_later_ends_as_lost(forgetful: Services, file: Path) -> None:
    app = create_app(forgetful)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        asked = await client.post("/v1/questions", json={"question": "Who?"})
        task = (await client.post("/retrieve", json={"query": "Who?"})).json()["task_id"]
        with closing(sqlite3.connect(file)) as wiping:
            wiping.execute("DELETE FROM job")
            wiping.commit()
        job = (await client.get(asked.headers["location"])).json()
        result = (await client.get(f"/result/{task}")).json()
        assert (await client.get("/v1/jobs/job_unknown")).status_code == 404
    assert (job["id"], job["state"], job["error"]["code"]) == (asked.json()["job_id"], "failed", "lost")
    assert (result["status"], result["result"]) == ("failed", None)


@pytest.mark.case(34)
def test_a_promise_is_kept_for_its_tenant_and_for_a_time() -> None:
    now = 0.0
    promises = Promises(clock=lambda: now)
    job = Job(
        id="job_1", kind="question", tenant="a", priority=Priority.INTERACTIVE, state=JobState.QUEUED, payload={"q": 1}
    )
    promises.keep(job)
    kept = promises.lost("job_1", "a")
    assert kept is not None
    assert (kept.state, kept.payload) == (JobState.FAILED, {})
    assert promises.lost("job_1", "b") is None
    now = KEPT_S
    assert promises.lost("job_1", "a") is None
