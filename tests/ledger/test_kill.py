"""kill -9 while it writes: what was said to be committed is there, whole, and the file is sound."""

import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from penstock.ledger import open_ledger
from penstock.types import CollectionOptions, DocumentStatus

_VICTIM = Path(__file__).with_name("ledger_victim.py")


def _kill_after(url: str, run: str, lines: int) -> list[list[str]]:
    """Starts the victim, kills it once it has said so many lines, and returns all that it said."""
    with subprocess.Popen([sys.executable, _VICTIM, url, run], stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        said = [victim.stdout.readline() for _ in range(lines)]
        victim.send_signal(signal.SIGKILL)
        said += victim.stdout.readlines()
    return [line.split() for line in said if line.endswith("\n")]


@pytest.mark.case(3)
@pytest.mark.case(19)
async def test_what_was_committed_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    url = f"sqlite:///{path}"
    async with open_ledger(url) as ledger:
        await ledger.create_collection("acme", "docs", CollectionOptions())
    told: dict[str, set[str]] = {"accepted": set(), "finished": set()}
    random.seed(7)
    for run in range(6):
        for what, name in _kill_after(url, f"run{run}", random.randint(1, 400)):
            told[what].add(name)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    async with open_ledger(url) as ledger:
        documents = (await ledger.list_documents("acme", "docs", limit=1_000_000)).documents
        collection = await ledger.get_collection("acme", "docs")
        chunks = await ledger.scan_chunks(collection.id, limit=1_000_000)
        pending = await ledger.pending_versions(limit=1_000_000)
    done = {document.name for document in documents if document.status is DocumentStatus.DONE}
    assert told["accepted"] <= {document.name for document in documents}
    assert told["finished"] <= done
    assert {work.name for work in pending} == {document.name for document in documents} - done
    assert sorted(found.chunk.text for found in chunks) == sorted([*done, *done, *done])
    assert (collection.documents, collection.chunks) == (len(done), 3 * len(done))
