"""`penstock ingest --watch`, against a real server."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from penstock.cli.watching import FolderWatch, Round, WatchOptions, state_file
from penstock.client import AsyncClient
from penstock.errors import PenstockError
from penstock.types import CollectionOptions


class Watching:
    """A watch that runs in this process, and what it told."""

    def __init__(self, client: AsyncClient, options: WatchOptions) -> None:
        self.told: list[Round | PenstockError] = []
        self._rang = asyncio.Event()
        self.watch = FolderWatch(client, options, self._tell)
        self._task = asyncio.create_task(self.watch.run())

    def _tell(self, told: Round | PenstockError) -> None:
        self.told.append(told)
        self._rang.set()

    async def next(self) -> Round:
        await self._rang.wait()
        self._rang.clear()
        told = self.told[-1]
        assert isinstance(told, Round), told
        return told

    async def stop(self) -> None:
        self.watch.stop()
        await self._task


@pytest.fixture
async def client(server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server) as opened:
        yield opened


@pytest.fixture
async def options(client: AsyncClient, tmp_path: Path) -> WatchOptions:
    await client.create_collection(tmp_path.name, CollectionOptions())
    (tmp_path / "docs").mkdir()
    return WatchOptions(
        folder=tmp_path / "docs",
        collection=tmp_path.name,
        state=tmp_path / "state.json",
        delete_missing=True,
        every_s=0.05,
        settle_s=0.0,
    )


async def names(client: AsyncClient, options: WatchOptions) -> dict[str, int]:
    """Versions by name."""
    return {d.name: d.version async for d in client.iter_documents(collection=options.collection)}


async def test_a_folder_and_a_collection_are_kept_the_same(client: AsyncClient, options: WatchOptions) -> None:
    folder = options.folder
    for name in "ab":
        (folder / f"{name}.txt").write_text(f"Water {name}.")
    (folder / "tool.exe").write_bytes(b"MZ\0\1\2" * 100)
    watching = Watching(client, options)
    first = await watching.next()
    assert (first.uploaded, [one.name for one in first.refused]) == (2, ["tool.exe"])
    (folder / "a.txt").write_text("Other water.")
    (folder / "sub").mkdir()
    (folder / "sub" / "c.txt").write_text("Water c.")
    while await names(client, options) != {"a.txt": 2, "b.txt": 1, "sub/c.txt": 1}:
        await watching.next()
    (folder / "b.txt").unlink()
    while "b.txt" in await names(client, options):
        await watching.next()
    await watching.stop()
    assert all(isinstance(told, Round) for told in watching.told)


async def test_a_watch_goes_on_where_it_was(client: AsyncClient, options: WatchOptions) -> None:
    for name in "abc":
        (options.folder / f"{name}.txt").write_text(f"Water {name}.")
    watching = Watching(client, options)
    assert (await watching.next()).uploaded == 3
    await watching.stop()
    (options.folder / "a.txt").unlink()
    (options.folder / "b.txt").write_text("Other water.")
    watching = Watching(client, options)
    assert (await watching.next()).uploaded == 1
    while await names(client, options) != {"b.txt": 2, "c.txt": 1}:
        await watching.next()
    await watching.stop()
    options.state.unlink()
    (options.folder / "c.txt").touch()
    (options.folder / "d.txt").write_text("Water d.")
    watching = Watching(client, options)
    done = await watching.next()
    assert (done.uploaded, done.unchanged) == (1, 2), "without its state it asks the server"
    await watching.stop()


async def test_a_folder_that_is_away_deletes_nothing(client: AsyncClient, options: WatchOptions) -> None:
    for name in "ab":
        (options.folder / f"{name}.txt").write_text(f"Water {name}.")
    watching = Watching(client, options)
    await watching.next()
    for name in "ab":
        (options.folder / f"{name}.txt").unlink()
    options.folder.rmdir()
    while not isinstance(watching.told[-1], PenstockError):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    options.folder.mkdir()
    (options.folder / "c.txt").write_text("Water c.")
    while "c.txt" not in await names(client, options):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await watching.stop()


def test_one_state_a_server_collection_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = {state_file(url, name, folder) for url in "uv" for name in "cd" for folder in (tmp_path, tmp_path.parent)}
    assert len(found) == 8
    assert {path.parent for path in found} == {tmp_path / "penstock"}


@pytest.mark.case(8)
def test_ctrl_c_ends_it_cleanly(server: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Water for the watch.")
    command = [sys.executable, "-m", "penstock", "ingest", "--watch", str(tmp_path / "docs"), "--url", server]
    with subprocess.Popen([*command, "--state", str(tmp_path / "s")], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline(), process.stderr.readline()]
        process.send_signal(signal.SIGINT)
        lines += process.stderr.readlines()
        assert process.wait(100) == 0
    assert "Watching" in lines[0]
    assert "1 uploaded" in lines[1]
    assert "Stopped" in lines[-1]


def test_only_one_folder_can_be_watched(cli: Callable[..., object], server: str, tmp_path: Path) -> None:
    result = cli("ingest", "--watch", tmp_path, tmp_path)
    assert getattr(result, "status", 0) == 2
