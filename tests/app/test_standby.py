"""The standby of `penstock serve`: it takes over from a worker that dies, and nothing depends on it."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)  # each starts several processes, one after the other

Start = Callable[..., Any]
WITHIN_S = 80.0


def serving_worker(server: Any) -> int | None:
    """The process of the worker that is ready, as the registry says."""
    ready = [one["pid"] for one in server.http.get("/v1/workers").json()["workers"] if one["ready"]]
    return ready[0] if ready else None


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def asks(server: Any) -> bool:
    """A question comes back, whichever worker takes it."""
    reply = server.http.post("/v1/questions", json={"question": "Who?", "wait_s": 25})
    return bool(reply.status_code == 200)


@pytest.mark.case(1)
@pytest.mark.case(8)
def test_the_standby_takes_over_with_the_settings_of_now(start_server: Start, tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text("[worker]\nconcurrency = 7\n")
    server = start_server(environ={"PENSTOCK_CONFIG": str(config)}).wait_ready()
    standby = server.wait_for("standby")
    config.write_text("[worker]\nconcurrency = 9\n")
    server.kill("worker")
    wait_until(lambda: serving_worker(server) == standby)
    (worker,) = server.http.get("/v1/workers").json()["workers"]
    assert worker["concurrency"] == 9
    assert asks(server)
    assert server.children()["worker"] == standby
    next_standby = server.wait_for("standby", other_than=standby)
    assert server.stop() == 0
    assert not Path(f"/proc/{next_standby}").exists()


@pytest.mark.case(1)
def test_nothing_depends_on_the_standby(start_server: Start) -> None:
    server = start_server().wait_ready()
    standby, worker = server.wait_for("standby"), server.children()["worker"]
    os.kill(standby, signal.SIGKILL)
    assert asks(server)
    assert serving_worker(server) == worker
    next_standby = server.wait_for("standby", other_than=standby)
    os.kill(next_standby, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: serving_worker(server) not in {None, worker, standby, next_standby})
    assert asks(server)


@pytest.mark.case(1)
def test_a_worker_killed_again_and_again_is_always_back(start_server: Start) -> None:
    server = start_server().wait_ready()
    for _ in range(4):
        before = server.wait_for("worker")
        os.kill(before, signal.SIGKILL)  # whatever the standby is doing just then
        server.wait_for("worker", other_than=before)
    wait_until(lambda: serving_worker(server) == server.children()["worker"])
    assert asks(server)
    standby = server.wait_for("standby")
    server.process.kill()
    wait_until(lambda: not Path(f"/proc/{standby}").exists())  # it ends with its supervisor


def test_none_where_it_is_switched_off(start_server: Start) -> None:
    server = start_server(environ={"PENSTOCK_WORKER__STANDBY": "false"}).wait_ready()
    before = server.children()["worker"]
    server.kill("worker")
    wait_until(lambda: serving_worker(server) not in {None, before})
    assert set(server.children()) == {"api", "worker"}
