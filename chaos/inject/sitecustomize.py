"""Read by every Python process of a chaos run: its own copy lies in the run's control folder, on PYTHONPATH.

The processes are the product's own, unchanged on disk; here they are told where to die. The control folder holds

    arm      a point, or `point:k` for its k-th time: the process that gets there takes the file away and is killed (-9)
    deaths   a line `time point pid` for each such death
    embeds   a line a call of the embedding model for documents: how many passages it was paid for
    clock    seconds by which every process's wall clock is off
"""

import ctypes
import functools
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(__file__).parent
MID_WRITE_S = 0.02
counts: dict[str, int] = {}


def armed(point: str) -> bool:
    try:
        name, _, nth = (FOLDER / "arm").read_text(encoding="utf-8").partition(":")
        if name != point:
            return False
        counts[point] = counts.get(point, 0) + 1
        if counts[point] < int(nth or 1):
            return False
        (FOLDER / "arm").unlink()
    except FileNotFoundError:
        return False
    counts.clear()
    return True


def log(name: str, line: str) -> None:
    with (FOLDER / name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def kill(point: str, pid: int) -> None:
    log("deaths", f"{time.time():.6f} {point} {pid}")
    os.kill(pid, signal.SIGKILL)


def die_at(point: str) -> None:
    if armed(point):
        kill(point, os.getpid())


def die_during(point: str) -> None:
    """Somewhere within what comes now."""
    if armed(point):
        # the process ends in it, and the thread with the process
        threading.Timer(random.uniform(0, MID_WRITE_S), kill, (point, os.getpid())).start()


def around(owner: type, name: str, before: str = "", during: str = "", after: str = "") -> None:
    """Makes the entry, the inside and the end of an async method points to die at."""
    whole = getattr(owner, name)

    @functools.wraps(whole)
    async def wrapped(*args, **kwargs):
        if before:
            die_at(before)
        if during:
            die_during(during)
        result = await whole(*args, **kwargs)
        if after:
            die_at(after)
        return result

    setattr(owner, name, wrapped)


def in_worker() -> None:
    from penstock.jobs.redis.store import RedisStore
    from penstock.jobs.sqlite.store import SqliteStore
    from penstock.ledger.sql import SqlLedger
    from penstock.models.batcher import Batcher
    from penstock.models.embedder import LocalEmbedder
    from penstock.pipeline.handlers import Handlers
    from penstock.pipeline.parsing import ParserPool
    from penstock.stores.lancedb import LanceIndex

    around(Handlers, "ingest", before="leased")
    around(ParserPool, "parse_and_chunk", before="read", after="chunked")
    around(LanceIndex, "upsert", before="before-upsert", during="mid-upsert", after="after-upsert")
    around(SqlLedger, "finish_version", before="before-finish", during="mid-finish", after="before-ack")
    for store in (RedisStore, SqliteStore):
        around(store, "_finish", during="mid-ack", after="after-ack")
    poison(ParserPool)
    die_in_engine(Batcher)
    count_embeds(LocalEmbedder)


def poison(pool: type) -> None:
    """A document whose name says so kills whoever reads it."""
    parse = pool.parse_and_chunk

    @functools.wraps(parse)
    async def wrapped(self, data, *, name, **rest):
        if name.startswith("poison-exit"):
            os._exit(139)
        if name.startswith("poison-segfault"):
            ctypes.string_at(0)
        if name.startswith("poison-oom"):
            os.kill(os.getpid(), signal.SIGKILL)  # as the system does to who takes too much
        return await parse(self, data, name=name, **rest)

    pool.parse_and_chunk = wrapped


def die_in_engine(batcher: type) -> None:
    start = batcher._start

    @functools.wraps(start)
    def wrapped(self, batch):
        running = start(self, batch)
        die_at("embed")  # the batch is inside the engine
        return running

    batcher._start = wrapped


def count_embeds(embedder: type) -> None:
    embed = embedder.embed

    @functools.wraps(embed)
    async def wrapped(self, texts, **how):
        vectors = await embed(self, texts, **how)
        if str(how.get("lane")) == "bulk":
            log("embeds", str(len(texts)))
        return vectors

    embedder.embed = wrapped


def in_parser() -> None:
    from penstock.pipeline.parsing.extract import Extractor

    parse = Extractor.parse

    @functools.wraps(parse)
    def wrapped(self, *args, **kwargs):
        document = parse(self, *args, **kwargs)
        if armed("parsed"):
            kill("parsed", os.getppid())
        return document

    Extractor.parse = wrapped


def in_api() -> None:
    from penstock.jobs.base import JobStore
    from penstock.pipeline.intake import Intake

    around(Intake, "add", before="api-received")
    around(JobStore, "enqueue", before="api-recorded", during="api-mid-enqueue", after="api-enqueued")


def skew_clock() -> None:
    """The wall clock, off by what the control folder says, looked up at most every 20 ms."""
    real, steady, file = time.time, time.monotonic, FOLDER / "clock"
    seen = [0.0, 0.0]

    def skewed() -> float:
        if steady() > seen[0] + 0.02:
            try:
                seen[:] = [steady(), float(file.read_text(encoding="ascii") or 0)]
            except (FileNotFoundError, ValueError):
                seen[:] = [steady(), 0.0]
        return real() + seen[1]

    time.time = skewed


command = sys.orig_argv[1:]
if command[:2] == ["-m", "penstock"] and "--supervised" in command:
    {"worker": in_worker, "api": in_api}[command[2]]()
elif command[:2] == ["-m", "penstock.pipeline.parsing.child"]:
    in_parser()
elif command[:2] == ["-m", "chaos.job_worker"]:
    skew_clock()
