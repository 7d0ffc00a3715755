"""`penstock serve` as a user starts it, on a free port and a folder of the test's own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "penstock"]


class Server:
    """A running `penstock serve`; `http` speaks to it once `wait_ready` returned."""

    def __init__(self, folder: Path, *flags: str, environ: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--data-dir", str(folder), "--port", "0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PENSTOCK_WORKER__GRACE_S": "5"} | (environ or {}),
        )
        self.http = httpx.Client()

    def wait_ready(self) -> "Server":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Penstock is ready on http://"), self.errors()
        self.http = httpx.Client(base_url=line.split()[-1], timeout=100)
        return self

    def errors(self) -> str:
        """What it wrote to stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def children(self) -> dict[str, int]:
        """Process ids by role, from the system. Of two workers the younger one is the standby."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) == self.process.pid and b"--supervised" in words and fields[0] != "Z":
                    found.append((int(fields[19]), words[3].decode(), int(folder.name)))
            except (OSError, ValueError, IndexError):
                continue
        roles: dict[str, int] = {}
        for _, role, pid in sorted(found):
            roles["standby" if role in roles else role] = pid
        return roles

    def wait_for(self, role: str, other_than: int = 0, within_s: float = 40) -> int:
        """The process of this role, once there is one and it is another one."""
        end = time.monotonic() + within_s
        while (pid := self.children().get(role, other_than)) == other_than:
            assert time.monotonic() < end, f"there is no {role}"
            time.sleep(0.05)
        return pid

    def kill(self, role: str) -> None:
        os.kill(self.children()[role], signal.SIGKILL)

    def kill_everything(self) -> None:
        """As a power cut would: the supervisor first, so that it restarts nothing."""
        children = self.children()
        self.process.kill()
        for pid in children.values():
            with suppress(ProcessLookupError):  # it saw its supervisor die, and ended first
                os.killpg(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(timeout=100)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return status

    def documents(self) -> list[dict[str, object]]:
        documents: list[dict[str, object]] = []
        cursor = None
        while True:
            page = self.http.get("/v1/documents", params={"limit": 500} | ({"cursor": cursor} if cursor else {})).json()
            documents += page["documents"]
            if not (cursor := page["cursor"]):
                return documents

    def wait_settled(self, within_s: float = 200) -> dict[str, tuple[object, object]]:
        """Status and number of chunks of each document by name, once all are final."""
        end = time.monotonic() + within_s
        while True:
            documents = self.documents()
            if all(one["status"] != "pending" for one in documents):
                return {str(one["name"]): (one["status"], one["chunks"]) for one in documents}
            assert time.monotonic() < end, [one for one in documents if one["status"] == "pending"]
            time.sleep(0.1)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*flags: str, **options: dict[str, str]) -> Server:
        servers.append(Server(tmp_path / "data", *flags, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill_everything()
        server.stop()
