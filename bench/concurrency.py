"""Many people ask at once: how long each waits for the whole answer, as a multiple of what the language model takes.

    python bench/concurrency.py [--quick] [--json]

The language model is a real HTTP server that streams 60 tokens over T seconds, however many ask: T = 3 s, and 15 s for
a thousand users. All N users ask at the same moment, each something else. `<system>.<N>.p95_over_llm` is the 95th
percentile of their waits over T; 1.0 cannot be beaten.

    serial       one question after the other, as a back end that works inside its request handler
    threadpool   40 threads, as FastAPI gives to plain functions
    rq5          RQ with 5 workers on Redis, in a virtual environment of its own
    penstock     `penstock serve`: one api and one worker process; the answers come as server-sent events

The first three do nothing but call the model: they are spared search, prompt, citations and HTTP; Penstock is not.
They only wait, so they are measured side by side. `penstock.submit_p99_ms` is the time of a POST to its 202 while the
users' answers are streaming, twenty such posts a second beside 100 and 1,000 users.

--quick leaves out what takes longer than it tells: serial with 10 and 100 users, RQ with 100.
"""

# ruff: noqa: ASYNC110 (a benchmark looks from outside)

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import uvloop

from concurrency_peer import ask as ask_llm
from jobs import redis_server
from jobs_peers import FOLDER as PEERS
from jobs_peers import environment
from main_job import children, rss_mb
from penstock.client import AsyncClient, NewText
from penstock.models.openai_http import Upstream

TOKENS = 60
LLM_S = {1: 3.0, 5: 3.0, 10: 3.0, 100: 3.0, 1_000: 15.0}
PENSTOCK_ALONE = 1_000
LEFT_OUT_WHEN_QUICK = {("serial", 10), ("serial", 100), ("rq5", 100)}
SUBMITS_PER_S = 20
THREADS = 40
COLLECTION = "bridges"
EVENTS = {"accept": "text/event-stream"}
PASSAGES = 300
RQ_WORK = "import rq.worker_pool, redis, sys; rq.worker_pool.WorkerPool(['default'], connection=redis.Redis.from_url(sys.argv[1]), num_workers=5).start(logging_level='ERROR')"  # noqa: E501
RQ_ASK = "import rq, redis, sys, json, time; q = rq.Queue(connection=redis.Redis.from_url(sys.argv[1]))\nwhile sum(worker.get_state() == 'idle' for worker in rq.Worker.all(queue=q)) < 5: time.sleep(.02)\njobs = [q.enqueue('concurrency_peer.ask', text, result_ttl=600) for text in json.loads(sys.argv[2])]; print('asked', flush=True)\nwhile not all(job.get_status(refresh=True).value in ('finished', 'failed') for job in jobs): time.sleep(.05)\nprint(json.dumps([job.return_value() for job in jobs]))"  # noqa: E501


def question(number: int) -> str:
    return f"In which year was bridge {number % PASSAGES} of the northern canal built, asks visitor {number}?"


def passage(number: int) -> str:
    return (
        f"Bridge {number} of the northern canal was built in {1700 + number}. It carries {number % 4 + 1} lanes, is "
        f"{20 + number % 37} metres long, and was repaired in {1900 + number % 99} after the flood of that winter."
    )


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


# --- the language model ----------------------------------------------------------------------------------------------


@contextmanager
def llm() -> Iterator[str]:
    """A process that streams the tokens; its URL."""
    with subprocess.Popen([sys.executable, "-m", "penstock.testing.llm"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def set_pace(llm_url: str, seconds: float) -> None:
    """The first token comes like every other one: after a sixtieth of the time."""
    each = seconds / TOKENS
    pace = {"tokens": TOKENS, "token_s": each, "first_token_s": each}
    httpx.post(llm_url.replace("/v1", "/control"), json={"standing": pace}).raise_for_status()


# --- back ends that call the model and wait --------------------------------------------------------------------------


def threads(count: int, users: int) -> list[float]:
    """So many threads answer all questions; seconds until each user has the answer."""
    started = time.time()
    with ThreadPoolExecutor(count) as pool:
        return [ended - started for ended in pool.map(ask_llm, map(question, range(users)))]


def rq(python: Path, users: int, folder: str) -> list[float]:
    """RQ's five workers are up and idle when the users ask."""
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with redis_server(folder) as url:
        pool = subprocess.Popen([python, "-c", RQ_WORK, url], env=environ, stderr=subprocess.DEVNULL)
        try:
            texts = json.dumps([question(number) for number in range(users)])
            with subprocess.Popen([python, "-c", RQ_ASK, url, texts], env=environ, stdout=subprocess.PIPE) as asker:
                assert asker.stdout is not None
                asker.stdout.readline()
                started = time.time()
                ended: list[float] = json.loads(asker.stdout.read())
            return [each - started for each in ended]
        finally:
            pool.terminate()
            pool.wait()


def measure_waiting(*, quick: bool, peers: Path) -> dict[str, float]:
    """Serial, thread pool and RQ, side by side."""
    python = environment("rq", peers, install=not quick) if shutil.which("redis-server") else None
    if python is None:
        print("rq5 is left out: it needs redis-server, and for --quick its environment made before", file=sys.stderr)
    figures = {}

    def each(system: str, once: Callable[[int], Sequence[float]]) -> None:
        for users in (users for users in LLM_S if users != PENSTOCK_ALONE):
            if not (quick and (system, users) in LEFT_OUT_WHEN_QUICK):
                figures[f"{system}.{users}.p95_over_llm"] = p95(once(users)) / LLM_S[users]

    with TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
        running = [
            pool.submit(each, "serial", lambda users: threads(1, users)),
            pool.submit(each, "threadpool", lambda users: threads(THREADS, users)),
        ]
        if python is not None:
            running.append(pool.submit(each, "rq5", lambda users: rq(python, users, folder)))
        for one in running:
            one.result()
    return figures


# --- Penstock --------------------------------------------------------------------------------------------------------


@contextmanager
def serve(folder: Path, llm_url: str) -> Iterator[tuple[str, dict[str, int]]]:
    """A `penstock serve` over this folder; its URL, and its processes by role."""
    environ = os.environ | {"PENSTOCK_GENERATOR__BASE_URL": llm_url, "PENSTOCK_GENERATOR__MODEL": "fake"}
    command = [sys.executable, "-m", "penstock", "serve", "--data-dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1], children(process.pid)
        finally:
            process.terminate()


async def ingest(url: str) -> None:
    async with AsyncClient(url) as client:
        await client.create_collection(COLLECTION)
        texts = [NewText(name=f"{number}.txt", text=passage(number)) for number in range(PASSAGES)]
        await client.add_texts(texts, collection=COLLECTION)
        while (await client.get_collection(COLLECTION)).documents < PASSAGES:
            await asyncio.sleep(0.05)


class Client:
    """The users, or the submitter, in a process of their own: one connection each, one parser for all."""

    def __init__(self, url: str) -> None:
        self._upstream = Upstream(url, connect_s=30)

    async def ask(self, number: int) -> tuple[float, float]:
        """Seconds to the first byte of the reply (the question is accepted), and to the end of the answer."""
        body = {"question": question(number), "collection": COLLECTION, "stream": True}
        started = time.perf_counter()
        tail = b""
        async with self._upstream.post(
            "/v1/questions", json.dumps(body).encode(), {"accept": "text/event-stream"}
        ) as got:
            accepted_s = time.perf_counter() - started
            while piece := await got.read():
                tail = (tail + piece)[-16_384:]
        if got.status != 200 or b"event: answer" not in tail:
            raise RuntimeError(f"question {number}: status {got.status}, {tail[-300:]!r}")
        return accepted_s, time.perf_counter() - started

    async def submit(self, number: int) -> float:
        """Seconds to the 202."""
        body = json.dumps({"question": question(number), "collection": COLLECTION}).encode()
        started = time.perf_counter()
        async with self._upstream.post("/v1/questions", body, {"accept": "application/json"}) as reply:
            took = time.perf_counter() - started
            while await reply.read():
                pass
        assert reply.status == 202, reply.status
        return took

    async def submit_on(self, seconds: float) -> list[float]:
        times = []
        for number in range(int(seconds * SUBMITS_PER_S)):
            times.append(await self.submit(10_000 + number))
            await asyncio.sleep(1 / SUBMITS_PER_S)
        return times


async def wave(url: str, users: int) -> dict[str, list[float]]:
    """All users ask at once."""
    client = Client(url)
    asked = await asyncio.gather(*map(client.ask, range(users)))
    return {"accepted": [one[0] for one in asked], "answered": [one[1] for one in asked]}


async def submits(url: str, seconds: float) -> dict[str, list[float]]:
    """Somebody who does not wait for answers submits, from a fifth of the way on."""
    client = Client(url)
    await client.submit(20_000)  # the connection is there
    await asyncio.sleep(seconds / 5)
    return {"submitted": await client.submit_on(seconds / 2)}


def run_wave(url: str, users: int, seconds: float) -> dict[str, list[float]]:
    """Users and submitter in two processes: the submitter's own wait for its turn is no wait for the server."""
    commands = [["--wave", url, str(users)]]
    if users >= 100:
        commands.append(["--submits", url, str(seconds)])
    running = [subprocess.Popen([sys.executable, __file__, *each], stdout=subprocess.PIPE) for each in commands]
    found: dict[str, list[float]] = {"submitted": []}
    for process in running:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(process.returncode)
        found |= json.loads(output)
    return found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_penstock(url: str, roles: dict[str, int], llm_url: str) -> tuple[dict[str, float], list[str]]:
    """Figures, and a line for each wave with what else can be known of it."""
    figures, lines, submits = {}, [], []
    run_wave(url, 2, LLM_S[1])  # not counted: the first connections, the first prompt
    for users, seconds in LLM_S.items():
        set_pace(llm_url, seconds)
        before = {role: cpu_s(pid) for role, pid in roles.items()}
        found = run_wave(url, users, seconds)
        figures[f"penstock.{users}.p95_over_llm"] = p95(found["answered"]) / seconds
        submits += found["submitted"]
        questions = users + len(found["submitted"])
        cost = {role: (cpu_s(pid) - before[role]) * 1000 / questions for role, pid in roles.items()}
        slowest = max(found["submitted"], default=0) * 1000
        lines.append(
            f"{users:9,} {p95(found['accepted']) * 1000:18,.0f} {max(found['answered']):14.2f} {slowest:18.1f} "
            f"{cost['api']:12.1f} {cost['worker']:15.1f} {rss_mb(roles['api']):10.0f} {rss_mb(roles['worker']):13.0f}"
        )
    figures["penstock.submit_p99_ms"] = statistics.quantiles(submits, n=100, method="inclusive")[-1] * 1000
    figures["penstock.api_rss_mb"], figures["penstock.worker_rss_mb"] = rss_mb(roles["api"]), rss_mb(roles["worker"])
    return figures, lines


def measure(*, quick: bool, peers: Path) -> tuple[dict[str, float], list[str]]:
    with TemporaryDirectory() as folder, llm() as llm_url:
        set_pace(llm_url, LLM_S[1])
        os.environ["LLM_URL"] = llm_url
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(measure_waiting, quick=quick, peers=peers)
            with serve(Path(folder), llm_url) as (url, roles):
                asyncio.run(ingest(url))
                figures = waiting.result()
                more, lines = measure_penstock(url, roles, llm_url)
                return figures | more, lines


def print_table(figures: dict[str, float], lines: list[str]) -> None:
    print(f"p95 of the wait for a whole answer, over the time that the model takes ({os.cpu_count()} cores)\n")
    print(f"{'users':12}" + "".join(f"{users:>10,}" for users in LLM_S))
    for system in ("serial", "threadpool", "rq5", "penstock"):
        found = [figures.get(f"{system}.{users}.p95_over_llm") for users in LLM_S]
        print(f"{system:12}" + "".join(f"{'-' if one is None else format(one, '.2f'):>10}" for one in found))
    print(
        "\npenstock\n    users accepted p95, ms slowest, s slowest submit, ms "
        "api CPU, ms worker CPU, ms api RSS, MB worker RSS, MB   (CPU: a question)"
    )
    print("\n".join(lines))
    print(f"\nsubmit p99 {figures['penstock.submit_p99_ms']:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out what takes long; under a minute")
    parser.add_argument("--json", action="store_true", help="one flat object on standard output")
    parser.add_argument("--peers", type=Path, default=PEERS, help="where RQ's environment lives")
    parser.add_argument("--wave", nargs=2, metavar=("URL", "USERS"), help=argparse.SUPPRESS)
    parser.add_argument("--submits", nargs=2, metavar=("URL", "SECONDS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.wave or asked.submits:
        url, number = asked.wave or asked.submits
        print(json.dumps(uvloop.run(wave(url, int(number)) if asked.wave else submits(url, float(number)))))
        return
    figures, lines = measure(quick=asked.quick, peers=asked.peers.absolute())
    if asked.json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    else:
        print_table(figures, lines)


if __name__ == "__main__":
    main()
