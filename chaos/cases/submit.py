"""Cases 2 and 9: the api killed between body and answer, and the same submit a hundred times at once."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import httpx

from chaos.arena import Arena, Engine
from chaos.desk import Desk, note
from chaos.judge import judge_jobs
from chaos.tally import SERVE_LIMIT_S, Tally
from penstock.ids import new_id
from penstock.jobs import JobStore, open_store
from penstock.jobs.base import JobFilter

POINTS = ("api-received", "api-recorded", "api-mid-enqueue", "api-enqueued")
TIMES = 100
WITHIN_S = 60.0


async def run_killed_api(arena: Arena) -> list[Tally]:
    return [await kill_api(arena, engine) for engine in arena.engines]


async def kill_api(arena: Arena, engine: Engine) -> Tally:
    """The client sees an error and submits again under the same key; what was accepted before is still there."""
    tally = Tally(case="2", what=f"api killed between body and 202 ({engine})", limit_s=SERVE_LIMIT_S)
    house = await arena.house(engine)
    desk = await Desk.open(house)
    accepted: dict[str, str] = {}
    async with open_store(house.jobs_url) as store:
        for number, point in enumerate(POINTS * arena.few(1, 3)):
            accepted |= await desk.upload([note(1000 + number)])
            documents = {"collection": desk.collection, "documents": [note(2000 + number)]}
            reply = await die_and_retry(tally, desk, point, "/v1/documents", documents)
            accepted |= {one["document"]["name"]: one["job_id"] for one in reply["documents"]}
            if point != "api-received":
                question = {"collection": desk.collection, "question": f"When must lamp {number} be repaired?"}
                await die_and_retry(tally, desk, point, "/v1/questions", question)
                await asked_once(tally, store, question)
        tally.require(not house.control.disarm(), "a point was never reached")
    await desk.judge(tally, dict.fromkeys(accepted), list(accepted.values()), [], WITHIN_S)
    return tally


async def die_and_retry(tally: Tally, desk: Desk, point: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    key = {"idempotency-key": new_id("key")}
    desk.serve.control.arm(point)
    try:
        reply = await desk.serve.http.post(path, json=body, headers=key)
        tally.require(point == "api-mid-enqueue", f"{path}: no error at {point}, but {reply.status_code}")
    except httpx.TransportError:
        pass
    broken_at = time.monotonic()
    answer: dict[str, Any] = (await desk.send("POST", path, json=body, headers=key, accept={200, 202})).json()
    tally.recoveries_s.append(time.monotonic() - broken_at)
    tally.runs += 1
    return answer


async def asked_once(tally: Tally, store: JobStore, question: dict[str, Any]) -> None:
    """There is one job that asks this."""
    page = await store.list(JobFilter(kinds=frozenset({"question"})), limit=1000)
    mine = [job.id for job in page.jobs if question.items() <= dict(job.payload).items()]
    tally.doubled += len(mine) - 1
    counted = tally.runs
    await judge_jobs(tally, store, mine, within_s=WITHIN_S)
    tally.runs = counted


async def run_duplicates(arena: Arena) -> list[Tally]:
    return [await submit_at_once(arena, engine) for engine in arena.engines]


async def submit_at_once(arena: Arena, engine: Engine) -> Tally:
    tally = Tally(case="9", what=f"the same submit {TIMES} times at once ({engine})")
    desk = await Desk.open(await arena.house(engine))
    texts = {"collection": desk.collection, "documents": [note(1)]}
    other_texts = {"collection": desk.collection, "documents": [note(2)]}
    question = {"collection": desk.collection, "question": "When must lamp 1 be repaired?"}
    for path, body, other in (
        ("/v1/documents", texts, other_texts),
        ("/v1/questions", question, question | {"question": "Another one?"}),
    ):
        key = {"idempotency-key": new_id("key")}
        calls = [desk.send("POST", path, json=body, headers=key, accept={200, 202}) for _ in range(TIMES)]
        answers = Counter(identity(reply) for reply in await asyncio.gather(*calls))
        tally.runs += TIMES
        tally.doubled += len(answers) - 1
        conflict = await desk.serve.http.post(path, json=other, headers=key)
        tally.require(conflict.status_code == 409, f"{path}: the key with another body gave {conflict.status_code}")
    runs = tally.runs
    await desk.judge(tally, {"note-1.md": None}, [], [], WITHIN_S)
    tally.runs = runs
    return tally


def identity(reply: httpx.Response) -> str:
    """What an answer promises: which jobs. (How far one is may differ between two answers.)"""
    body = reply.json()
    return json.dumps(body.get("job_id") or [one["job_id"] for one in body["documents"]])
