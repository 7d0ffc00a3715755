"""`penstock serve` in a folder of its own, and what its processes take: processor time and memory by role."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

TICKS = os.sysconf("SC_CLK_TCK")
ROLES = ("api", "worker", "parsers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    pid: int
    url: str
    folder: Path

    def processes(self) -> Mapping[str, list[int]]:
        """Process ids by role."""
        found: dict[str, list[int]] = {role: [] for role in ROLES}
        for child in _children(self.pid):
            if "--standby" in _command(child):
                continue
            role = "worker" if "worker" in _command(child) else "api"
            found[role].append(child)
            if role == "worker":
                found["parsers"] += _children(child)
        return found

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far by role; of parsers, also what those that have ended took."""
        found = self.processes()
        cpu_s = {role: sum(_cpu(pid) for pid in pids) for role, pids in found.items()}
        cpu_s["parsers"] += sum(_cpu(pid, of_children=True) for pid in found["worker"])
        return cpu_s

    def rss_mb(self) -> dict[str, float]:
        """Resident MiB by role."""
        return {role: sum(map(_rss_mb, pids)) for role, pids in self.processes().items()}


@contextmanager
def running(**environ: str) -> Iterator[Server]:
    """A fresh server, warm. Everything of it is gone afterwards."""
    folder = Path(mkdtemp(prefix="penstock-bench-"))
    command = [sys.executable, "-m", "penstock", "serve", "--data-dir", str(folder / "data"), "--port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | environ, cwd=folder
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"penstock serve did not start:\n{(folder / 'log').read_text()[-2000:]}")
        yield Server(pid=process.pid, url=line.split()[-1], folder=folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _cpu(pid: int, *, of_children: bool = False) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    own = fields[13:15] if of_children else fields[11:13]
    return sum(map(int, own)) / TICKS


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
