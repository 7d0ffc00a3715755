"""Ctrl-C during `penstock ingest`: the bars on a terminal, the offer to cancel, what the server is left with."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client
from penstock.types import DocumentStatus

pytestmark = pytest.mark.timeout(300)

FILES = 400


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(FILES):
        (tmp_path / f"{number}.txt").write_text(f"Lamp {number} is out. " * 150)
    return tmp_path


class Terminal:
    """A command whose stdin and stderr are a terminal."""

    def __init__(self, *words: str) -> None:
        self.master, terminal = pty.openpty()
        command = [sys.executable, "-m", "penstock", *words]
        self.process = subprocess.Popen(
            command, stdin=terminal, stderr=terminal, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}
        )
        os.close(terminal)
        self.shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:  # the other end is closed
                return
            self.shown += data

    def wait(self) -> tuple[int, str, str]:
        out, _ = self.process.communicate(timeout=100)
        self._reader.join()
        os.close(self.master)
        return self.process.returncode, out.decode(), self.shown.decode()


@contextmanager
def collection(url: str, name: str) -> Iterator[Client]:
    with Client(url) as client:
        client.create_collection(name)
        yield client
        client.delete_collection(name)


def until(found: Any, within_s: float = 100) -> None:
    end = time.monotonic() + within_s
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_bars_are_for_terminals_only(server: str, folder: Path) -> None:
    with collection(server, "bars"):
        status, out, shown = Terminal("ingest", str(folder), "-c", "bars", "--include", "1?.txt").wait()
    assert status == 0
    assert out.startswith("10 documents: 10 done")
    assert "\x1b" not in out
    assert "finished" in shown
    assert "eta" in shown


def test_an_interrupted_ingest_can_be_cancelled(server: str, folder: Path) -> None:
    with collection(server, "cut") as client:
        terminal = Terminal("ingest", str(folder), "-c", "cut")
        until(lambda: client.list_documents(collection="cut", limit=1).documents)
        terminal.process.send_signal(signal.SIGINT)
        os.write(terminal.master, b"y\n")
        status, out, shown = terminal.wait()
        assert (status, out.strip()) == (130, "")
        assert "goes on without you" in shown
        assert "Cancelled" in shown
        cancelled = DocumentStatus.CANCELLED
        until(lambda: client.list_documents(collection="cut", statuses=[cancelled], limit=1).documents)


def test_an_interrupted_ingest_goes_on_without_its_caller(server: str, folder: Path) -> None:
    with collection(server, "on") as client:
        command = [sys.executable, "-m", "penstock", "ingest", str(folder), "-c", "on"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: client.list_documents(collection="on", limit=1).documents)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
        assert (process.returncode, out) == (130, b"")
        assert b"penstock documents list --status pending" in err

        def number(status: DocumentStatus) -> int:
            return len(client.list_documents(collection="on", statuses=[status], limit=1000).documents)

        before = number(DocumentStatus.DONE)
        until(lambda: number(DocumentStatus.DONE) > before or not number(DocumentStatus.PENDING))
        assert not number(DocumentStatus.CANCELLED)
