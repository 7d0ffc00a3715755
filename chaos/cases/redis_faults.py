"""Cases 14 and 15: Redis killed and started again, and Redis wiped, in the middle of everything."""

import asyncio
import time

import httpx

from chaos.arena import Arena
from chaos.desk import Desk, note
from chaos.tally import Tally

WITHIN_S = 120.0
AWAY_S = 4.0
ANSWER_WITHIN_S = 7.0
QUESTIONS = 20


async def run_killed(arena: Arena) -> list[Tally]:
    """The api says 503 with `Retry-After`, and everything goes on by itself."""
    tally = Tally(case="14", what="Redis killed and started again during ingest")
    house, redis = await arena.house("redis"), await arena.redis()
    desk = await Desk.open(house)
    documents = [note(i) for i in range(arena.few(100, 400))]
    jobs = await desk.upload(documents)
    for _ in range(arena.few(1, 3)):
        await asyncio.sleep(arena.rng.uniform(0.2, 1.0))
        redis.kill()
        back = time.monotonic() + AWAY_S
        while time.monotonic() < back:
            await refused(tally, desk)
        await asyncio.to_thread(redis.start)
        started = time.monotonic()
        jobs |= await desk.upload([note(10_000 + tally.runs)])
        question = {"collection": desk.collection, "question": "When must lamp 1 be repaired?", "wait_s": 30}
        await desk.send("POST", "/v1/questions", json=question, accept={200})
        tally.recoveries_s.append(time.monotonic() - started)
        tally.runs += 1
    names = {one["name"] for one in documents} | set(jobs)
    await desk.judge(tally, dict.fromkeys(names), list(jobs.values()), [], WITHIN_S)
    return [tally]


async def refused(tally: Tally, desk: Desk) -> None:
    started = time.monotonic()
    question = {"collection": desk.collection, "question": "Which lamp?"}
    reply = await desk.serve.http.post("/v1/questions", json=question)
    took_s = time.monotonic() - started
    told = reply.status_code == 503 and "retry-after" in reply.headers
    tally.require(told, f"without Redis a question gets {reply.status_code}, headers {dict(reply.headers)}")
    tally.require(took_s < ANSWER_WITHIN_S, f"without Redis a question hangs for {took_s:.1f} s")
    await asyncio.sleep(0.2)


async def run_flushed(arena: Arena) -> list[Tally]:
    """Documents are enqueued again from the ledger; questions in flight end as `lost` for whoever waits for them."""
    tally = Tally(case="15", what="FLUSHALL during ingest and questions")
    house, redis = await arena.house("redis"), await arena.redis()
    desk = await Desk.open(house)
    documents = [note(i) for i in range(arena.few(100, 400))]
    await desk.upload(documents)
    house.kill("worker")  # so that all questions are in flight when it happens
    asking = [asyncio.create_task(wait_for_answer(desk, i)) for i in range(QUESTIONS)]
    polled = [await desk.ask(f"When must lamp {i} be repaired, which is asked and looked after?") for i in range(3)]
    await asyncio.sleep(arena.rng.uniform(0.2, 0.5))
    redis.ask(b"FLUSHALL")
    asked = time.monotonic()
    for reply in await asyncio.gather(*asking):
        tally.runs += 1
        answered = reply.status_code == 200
        lost = reply.status_code == 503 and reply.json()["code"] == "lost"
        tally.stuck += reply.status_code == 202
        tally.require(answered or lost or reply.status_code == 202, f"a question got {reply.status_code} {reply.text}")
    tally.notes.append(f"the last question had its end {time.monotonic() - asked:.1f} s after the flush")
    for job_id in polled:
        job = (await desk.send("GET", f"/v1/jobs/{job_id}", accept={200})).json()
        tally.runs += 1
        tally.stuck += job["state"] not in {"succeeded", "failed"}
        lost = job["state"] == "failed" and job["error"]["code"] == "lost"
        tally.require(lost or job["state"] == "succeeded", f"a question looked after is {job['state']}: {job['error']}")
    await desk.judge(tally, {one["name"]: None for one in documents}, [], [], WITHIN_S)
    return [tally]


async def wait_for_answer(desk: Desk, number: int) -> httpx.Response:
    question = f"When must street lamp {number} be repaired?"
    body = {"collection": desk.collection, "question": question, "wait_s": 30}
    return await desk.serve.http.post("/v1/questions", json=body)
