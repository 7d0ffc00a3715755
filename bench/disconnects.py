"""A thousand clients that leave: whether anything of them stays behind (case 26).

    python bench/disconnects.py [--clients N] [--json] [--quick]

`penstock serve` before a fake provider that never ends its replies; half of the questions come with an image. Each
client asks, and hangs up after a random while: before the first word, or in the middle of the stream.

    upstream_closed.p95_s, .max_s   from a client's hanging up to the provider's losing its call; one at a time
    left.upstream                   calls that the provider still sees two seconds after the last client has gone
    left.jobs                       questions that are queued or running then
    grown.fds, grown.threads        of the api and the worker together, against one that such clients have left before
    grown.rss_mb                    the same for memory
"""

# ruff: noqa: ASYNC110 (a benchmark looks from outside)

import argparse
import asyncio
import base64
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from PIL import Image

from penstock.testing.behaviour import Behaviour
from penstock.testing.provider import FakeProvider

AT_ONCE = 40
WARM_SHARE = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="200 clients")
    options = parser.parse_args()
    figures = asyncio.run(measure(200 if options.quick else options.clients))
    print(json.dumps(figures) if options.json else "\n".join(f"{name:24} {value}" for name, value in figures.items()))
    sys.exit(bool(figures["left.upstream"] or figures["left.jobs"]))


async def measure(clients: int) -> dict[str, float]:
    pace = Behaviour(first_token_s=0.2, token_s=0.05, tokens=10_000)
    async with FakeProvider(pace) as provider:
        with serving(provider.url) as (url, pid):
            async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=None)) as http:
                await fill(http)
                crowd = Crowd(http, provider)
                await crowd.come_and_go(int(WARM_SHARE * clients))
                await calm(http, provider)
                before = footprint(pid)
                await crowd.come_and_go(clients)
                await calm(http, provider)
                after = footprint(pid)
                left = await jobs_left(http)
                waits = [await crowd.timed(image=number % 2 == 0) for number in range(max(10, clients // 10))]
    return {
        "clients": clients,
        "upstream_calls": provider.stats.requests,
        "upstream_closed.p95_s": round(statistics.quantiles(waits, n=20, method="inclusive")[-1], 3),
        "upstream_closed.max_s": round(max(waits), 3),
        "left.upstream": provider.stats.open,
        "left.jobs": left,
        **{f"grown.{name}": round(after[name] - before[name], 1) for name in before},
    }


class Crowd:
    """Clients that ask and leave."""

    def __init__(self, http: httpx.AsyncClient, provider: FakeProvider) -> None:
        self._http = http
        self._provider = provider
        self._random = random.Random(7)
        self._turns = asyncio.Semaphore(AT_ONCE)
        picture = io.BytesIO()
        Image.effect_noise((200, 200), 40).save(picture, "PNG")
        self._image = base64.b64encode(picture.getvalue()).decode()

    async def come_and_go(self, clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        async with self._turns:
            body = self._question(image=number % 2 == 0)
            how = number % 3
            try:
                async with asyncio.timeout(self._random.uniform(0.05, 1.0)):
                    if how == 0:  # one that waits for the whole answer
                        await self._http.post("/v1/questions", json={**body, "wait_s": 30})
                    else:
                        async with self._http.stream("POST", "/v1/questions", json={**body, "stream": True}) as reply:
                            async for _ in reply.aiter_bytes():
                                pass
            except TimeoutError:
                pass

    async def timed(self, *, image: bool) -> float:
        """Seconds from hanging up until the provider has lost the call that was made for this client."""
        question = {**self._question(image), "stream": True}
        async with self._http.stream("POST", "/v1/questions", json=question) as reply:
            async with asyncio.timeout(30):
                while not self._provider.stats.open:
                    await asyncio.sleep(0.005)
            await reply.aclose()
        left = time.perf_counter()
        async with asyncio.timeout(30):
            while self._provider.stats.open:
                await asyncio.sleep(0.005)
        return time.perf_counter() - left

    def _question(self, image: bool) -> dict[str, object]:
        question = f"How does the gate number {self._random.randrange(10**6)} open?"
        return {"question": question, "image": self._image} if image else {"question": question}


async def fill(http: httpx.AsyncClient) -> None:
    """A document, so that there are passages to write from."""
    text = "\n\n".join(f"Gate {number} opens at {number} bar." for number in range(50))
    reply = await http.post("/v1/documents", json={"documents": [{"name": "gates.txt", "text": text}]})
    job_id = reply.json()["documents"][0]["job_id"]
    while (await http.get(f"/v1/jobs/{job_id}")).json()["state"] not in {"succeeded", "failed"}:
        await asyncio.sleep(0.1)


async def calm(http: httpx.AsyncClient, provider: FakeProvider) -> None:
    """Two seconds at most, in which all that is going to end has ended."""
    by = time.monotonic() + 2
    while (provider.stats.open or await jobs_left(http)) and time.monotonic() < by:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)


async def jobs_left(http: httpx.AsyncClient) -> int:
    queues = (await http.get("/v1/queues")).json()["queues"]
    return sum(queue["ready"] + queue["running"] for queue in queues)


def footprint(pid: int) -> dict[str, float]:
    """Of the supervisor's children: the api and the worker, not the parsers."""
    sums = {"fds": 0.0, "threads": 0.0, "rss_mb": 0.0}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
        sums["fds"] += len(list(Path(f"/proc/{child}/fd").iterdir()))
        sums["threads"] += int(status["Threads"])
        sums["rss_mb"] += int(status["VmRSS"].split()[0]) / 1024
    return sums


@contextmanager
def serving(provider_url: str) -> Iterator[tuple[str, int]]:
    """A fresh server whose language and vision model are the fake one: its URL, and its process."""
    with TemporaryDirectory() as folder:
        model = {"PENSTOCK_GENERATOR__BASE_URL": provider_url, "PENSTOCK_GENERATOR__MODEL": "fake"}
        model |= {"PENSTOCK_VISION__BASE_URL": provider_url, "PENSTOCK_VISION__MODEL": "fake-vl"}
        command = [sys.executable, "-m", "penstock", "serve", "--data-dir", folder, "--port", "0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | model
        ) as process:
            try:
                assert process.stdout is not None
                yield process.stdout.readline().split()[-1], process.pid
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
