"""Redis as it is run elsewhere: over TLS with a password, and as a cluster."""

import asyncio
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from penstock.errors import ConfigError, Unavailable
from penstock.jobs import JobStore, open_store
from penstock.jobs.records import JobFilter
from penstock.jobs.worker import JobContext, Worker
from penstock.types import JSON, JobState, NewJob, Progress


@pytest.fixture
def tls_redis(own_redis: Any, tmp_path: Path) -> Any:
    """Takes TLS alone, with a certificate of its own making, and wants a password."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl on the PATH")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    keys = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*make.split(), *keys], cwd=tmp_path, check=True, capture_output=True)
    tls = ["--port", "0", "--tls-port", str(own_redis.port), "--tls-auth-clients", "no"]
    files = ["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem"]
    command = ["redis-server", "--appendonly", "yes", "--requirepass", "s3cret", *tls, *files]
    own_redis.process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 50
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", own_redis.port), 1):
            break
        time.sleep(0.01)
    return own_redis


@pytest.fixture
def cluster(own_redis: Any) -> Any:
    """A cluster of one node that has all slots: it refuses whatever touches two of them."""
    own_redis.settings = ("--cluster-enabled", "yes")
    own_redis.start()
    with redis.Redis(port=own_redis.port) as client:
        client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.01)
    return own_redis


async def _handle(context: JobContext) -> JSON:
    await context.progress("work", 1, 2)
    await context.emit("delta", {"text": "a"})
    if context.job.payload["fail"]:
        raise ValueError("broken")
    return {"done": True}


async def every_verb(store: JobStore) -> None:
    """A worker runs what there is; everything else is done by hand."""
    worker = Worker(store, {"work": _handle})
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        new = [
            NewJob(kind="work", tenant=tenant, payload=payload, max_attempts=1, subject="s", idempotency_key=tenant)
            for tenant, payload in (("acme", {"fail": False}), ("other", {"fail": True}))
        ]
        good, bad = [accepted.job for accepted in await store.enqueue(new)]
        events = [event async for event in store.watch(good.id)]
        assert [event.type for event in events] == ["state", "delta", "progress", "state"]
        assert (await store.wait(good.id, timeout_s=30)).result == {"done": True}
        assert (await store.wait(bad.id, timeout_s=30)).state is JobState.FAILED
        worker.stop()
    assert not (await store.enqueue(new[:1]))[0].created
    assert (await store.retry(bad.id)).state is JobState.QUEUED
    (leased,) = await store.lease("wrk", kinds=["work"], n=5)
    await store.append(leased.id, leased.attempt, [], Progress(stage="again"))
    assert not (await asyncio.to_thread(store.beat, "wrk", {leased.id: leased.attempt})).lost
    assert await store.hand_back("wrk", died=False) == 1
    assert await store.cancel_all(JobFilter(subject="s")) == 1
    assert await store.count(JobFilter(tenant="other", states=frozenset({JobState.CANCELLED}))) == 1
    assert len((await store.list(JobFilter())).jobs) == 2
    await store.expire()
    assert len(await store.stats()) == 3


async def test_over_tls_with_a_password(tls_redis: Any, tmp_path: Path) -> None:
    trusted = f"127.0.0.1:{tls_redis.port}?ssl_ca_certs={tmp_path / 'cert.pem'}"
    async with open_store(f"rediss://:s3cret@{trusted}") as store:
        assert store.durable
        await every_verb(store)
    with pytest.raises(ConfigError, match="does not let us in"):
        async with open_store(f"rediss://:wrong@{trusted}"):
            pass
    with pytest.raises(Unavailable, match="certificate"):
        async with open_store(f"rediss://:s3cret@127.0.0.1:{tls_redis.port}"):
            pass


async def test_all_keys_of_a_store_are_in_one_slot_of_a_cluster(cluster: Any) -> None:
    async with open_store(f"{cluster.url}?prefix=mine") as store:
        await every_verb(store)
    with redis.Redis(port=cluster.port) as client:
        keys: Any = client.keys("*")
        assert len({client.execute_command("CLUSTER KEYSLOT", key) for key in keys}) == 1, keys
        assert all(key.startswith(b"{mine}:") for key in keys)
