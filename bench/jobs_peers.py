"""Other queues under the work of `bench/jobs.py`, each in a virtual environment of its own, on the same Redis.

    python bench/jobs_peers.py redis://… FOLDER_OF_THE_ENVIRONMENTS

Prints one JSON object: by peer `noop_per_s` and `recovery_s` (null: not within two minutes).
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

PACKAGES = {
    "rq": ["rq"],
    "celery": ["celery[redis]"],
    "saq": ["saq[redis]", "typing-extensions"],
    "arq": ["arq"],
    "taskiq": ["taskiq", "taskiq-redis"],
    "streaq": ["streaq", "redis"],
}
NOOPS = {"rq": 300, "celery": 3_000}
_RECOVERY_LIMIT_S = 120.0
_NOOP_LIMIT_S = 120.0
_SETTLE_S = 4.0


FOLDER = Path.home() / ".cache/penstock/bench-peers"
"""Where the environments live, and stay for the next run."""


def measure_peers(url: str, folder: Path) -> dict[str, dict[str, float | None]]:
    """A peer that cannot be installed is left out."""
    figures = {}
    for number, peer in enumerate(PACKAGES, start=1):
        python = environment(peer, folder)
        if python is not None:
            print(f"measuring {peer} …", file=sys.stderr)
            figures[peer] = {
                "noop_per_s": _throughput(peer, python, f"{url}/{number}"),
                "recovery_s": _recovery(peer, python, f"{url}/{number}"),
            }
    return figures


def environment(peer: str, folder: Path, *, install: bool = True) -> Path | None:
    """The interpreter of the peer's environment, made where it is not there and `install` allows it."""
    python = folder / peer / "bin" / "python"
    if not (install or python.exists()):
        return None
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True)
    except subprocess.CalledProcessError as exc:
        print(f"{peer} could not be installed and is left out: {exc}", file=sys.stderr)
        return None
    return python


def _command(python: Path, *arguments: str) -> list[str]:
    return [str(python), str(Path(__file__).with_name("jobs_peer.py")), *arguments]


def _settings(peer: str, url: str, count: int) -> dict[str, str]:
    path = str(Path(__file__).parent)
    return os.environ | {"PEER": peer, "REDIS_URL": url, "COUNT": str(count), "PYTHONPATH": path}


@contextmanager
def _worker(peer: str, python: Path, url: str, count: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker with its children in a process group of its own; killed at the end."""
    process = subprocess.Popen(
        _command(python, "worker"),
        env=_settings(peer, url, count),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _throughput(peer: str, python: Path, url: str) -> float | None:
    marks = redis.Redis.from_url(url, decode_responses=True)
    marks.flushdb()
    count = NOOPS.get(peer, 5_000)
    # A stream is read from where its consumers first joined, so some peers must have had a worker before.
    with _worker(peer, python, url, 0):
        time.sleep(_SETTLE_S)
    subprocess.run(_command(python, "enqueue", "noop"), env=_settings(peer, url, count), check=True)
    with _worker(peer, python, url, count):
        until = time.monotonic() + _NOOP_LIMIT_S
        while time.monotonic() < until and not marks.exists("bench:last"):
            time.sleep(0.05)
    first, last = str(marks.get("bench:first")), str(marks.get("bench:last"))
    return None if last == "None" else (count - 1) / (float(last) - float(first))


def _recovery(peer: str, python: Path, url: str) -> float | None:
    marks = redis.Redis.from_url(url, decode_responses=True)
    marks.flushdb()
    with _worker(peer, python, url, 0) as first:
        time.sleep(_SETTLE_S)
        subprocess.run(_command(python, "enqueue", "hang"), env=_settings(peer, url, 0), check=True)
        until = time.monotonic() + _NOOP_LIMIT_S
        while int(str(marks.get("bench:begun") or 0)) < 20:
            if time.monotonic() > until:
                return None
            time.sleep(0.05)
        with _worker(peer, python, url, 0):
            time.sleep(_SETTLE_S)
            _kill(first)
            killed = time.monotonic()
            while time.monotonic() < killed + _RECOVERY_LIMIT_S:
                if int(str(marks.scard("bench:recovered"))) == 20:
                    return time.monotonic() - killed
                time.sleep(0.05)
    return None


if __name__ == "__main__":
    print(json.dumps(measure_peers(sys.argv[1], Path(sys.argv[2]))))
