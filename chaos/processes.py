"""The processes that a chaos run starts, and may therefore kill: Redis, `penstock serve`, workers of test jobs."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import httpx

Process: TypeAlias = "subprocess.Popen[bytes]"

INJECT = Path(__file__).with_name("inject") / "sitecustomize.py"
ROOT = Path(__file__).parents[1]
READY_WITHIN_S = 120.0


class Control:
    """The folder through which processes are told where to die; see `inject/sitecustomize.py`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copy(INJECT, folder)

    def environment(self) -> dict[str, str]:
        given = os.environ.get("PYTHONPATH")
        paths = [str(self.folder), *([given] if given else []), str(ROOT)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def arm(self, point: str) -> None:
        """The next process that gets there dies there."""
        fresh = self.folder / "arming"
        fresh.write_text(point, encoding="utf-8")
        fresh.rename(self.folder / "arm")

    def disarm(self) -> bool:
        """False where the arm was used."""
        with suppress(FileNotFoundError):
            (self.folder / "arm").unlink()
            return True
        return False

    def deaths(self) -> list[float]:
        """When each of them died, in order."""
        return [float(line.split()[0]) for line in self._lines("deaths")]

    def embeds(self) -> int:
        """Passages of documents that the model was paid for."""
        return sum(map(int, self._lines("embeds")))

    def turn_clock(self, seconds: float) -> None:
        (self.folder / "clock").write_text(str(seconds), encoding="ascii")

    def _lines(self, name: str) -> list[str]:
        file = self.folder / name
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


class Redis:
    """A real Redis on a free port that forgets nothing that it acknowledged (`appendfsync always`)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: Process | None = None

    def url(self, prefix: str) -> str:
        return f"redis://127.0.0.1:{self.port}?prefix={prefix}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
             "--appendonly", "yes", "--appendfsync", "always"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + READY_WITHIN_S
        while self.ask(b"PING") != b"+PONG\r\n":
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.02)

    def ask(self, command: bytes) -> bytes:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as line:
            line.sendall(command + b"\r\n")
            return line.recv(64)
        return b""

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Serve:
    """`penstock serve` as a user starts it."""

    def __init__(self, folder: Path, jobs_url: str = "", **settings: str) -> None:
        self.folder = folder
        self.control = Control(folder / "control")
        self.data = folder / "data"
        self.jobs_url = jobs_url or f"sqlite:///{self.data}/jobs.sqlite3"
        self._environ = self.control.environment() | {"PENSTOCK_JOBS": jobs_url, "PENSTOCK_WORKER__GRACE_S": "8"}
        self._environ |= settings
        self._process: Process | None = None
        self.http = httpx.AsyncClient()

    async def start(self) -> float:
        """Returns once it says that it is ready; how long that took."""
        started = time.monotonic()
        with (self.folder / "log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock", "serve", "--data-dir", str(self.data), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environ,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        line = (await asyncio.to_thread(self._process.stdout.readline)).decode()
        if not line.startswith("Penstock is ready on http://"):
            raise RuntimeError(f"`penstock serve` did not start; see {self.folder / 'log'}")
        await self.http.aclose()
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=0)
        self.http = httpx.AsyncClient(base_url=line.split()[-1], timeout=60, limits=limits)
        return time.monotonic() - started

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def children(self) -> dict[str, int]:
        """Process ids by role, from the system. Of two workers the younger one is the standby."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                fields = (folder / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
                if int(fields[1]) == self.pid and b"--supervised" in words and fields[0] != "Z":
                    found.append((int(fields[19]), words[3].decode(), int(folder.name)))
            except (OSError, ValueError, IndexError):
                continue
        roles: dict[str, int] = {}
        for _, role, pid in sorted(found):
            roles["standby" if role in roles else role] = pid
        return roles

    def kill(self, role: str) -> list[float]:
        """`kill -9`; the moment of it, or none where there is no such process just now."""
        with suppress(KeyError, ProcessLookupError):
            os.kill(self.children()[role], signal.SIGKILL)
            return [time.time()]
        return []

    def kill_everything(self) -> float:
        """As a power cut would: the supervisor first, so that it restarts nothing."""
        children = self.children()
        assert self._process is not None
        self._process.kill()
        for pid in children.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._process.wait()
        return time.time()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within_s: float) -> int | None:
        """Its exit status; None when it still runs after that time."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(self._process.wait, within_s)
        return None

    async def close(self) -> None:
        await self.http.aclose()
        if self.running:
            self.signal(signal.SIGTERM)
            if await self.ended(30) is None:
                self.kill_everything()


class Crew:
    """Processes of `chaos.job_worker` on one job store."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir(parents=True)
        self.url = url
        self.effects = folder / "effects"
        self.effects.touch()
        self.control = Control(folder / "control")
        self.members: list[Process] = []

    def start(self, *, control: Control | None = None) -> Process:
        with self.effects.with_name("log").open("ab") as errors:
            member = subprocess.Popen(
                [sys.executable, "-m", "chaos.job_worker", self.url, str(self.effects)],
                env=(control or self.control).environment(),
                cwd=ROOT,
                stderr=errors,
            )
        self.members.append(member)
        return member

    def busiest(self) -> Process:
        """The member that most of the newest jobs began on."""
        lines = self.effects.read_text(encoding="ascii").rpartition("\n")[0].splitlines()
        pids = [int(line.split()[-1]) for line in lines if " begun " in line][-40:]
        return max(self.members, key=lambda member: pids.count(member.pid))

    async def respawn(self) -> None:
        """For ever: a member that died is replaced, as a service manager would."""
        while True:
            for member in [each for each in self.members if each.poll() is not None]:
                self.members.remove(member)
                self.start()
            await asyncio.sleep(0.1)

    def kill(self, member: Process) -> float:
        member.kill()
        member.wait()
        if member in self.members:
            self.members.remove(member)
        return time.time()

    def close(self) -> None:
        for member in self.members:
            member.send_signal(signal.SIGCONT)
            member.kill()
            member.wait()
        self.members.clear()
