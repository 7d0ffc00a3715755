"""`penstock ingest --watch`: a folder and a collection are kept the same, for as long as it runs.

What the server knows already is not sent again: a file is compared by size and time with what a state file remembers,
then by hash with the server's documents. So a watch that was stopped, or whose state was lost, goes on where it was.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from penstock.cli.files import find_files
from penstock.cli.ingestion import Ingestion, Unfit
from penstock.client import AsyncClient, NewFile
from penstock.errors import InvalidInput, NotFound, PenstockError

SLICE_FILES = 500
"""So many files are uploaded until the state is saved again."""
SCAN_SHARE = 0.05
"""Looking at the folder takes at most this share of the time."""


class Seen(msgspec.Struct, frozen=True):
    """A file as it was when the server took it, or refused it (`sha256` is empty then)."""

    size_bytes: int
    mtime_ns: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """`settle_s`: a file that changed so lately may still be being written. `state`: where it is remembered."""

    folder: Path
    collection: str
    state: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    delete_missing: bool = False
    uploads_at_once: int = 3
    every_s: float = 2.0
    settle_s: float = 1.0


@dataclass(slots=True)
class Round:
    """What one look at the folder led to."""

    uploaded: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: list[Unfit] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.uploaded or self.deleted or self.refused)


def state_file(url: str, collection: str, folder: Path) -> Path:
    """Where a watch is remembered if nobody says where: one file for each server, collection and folder."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    key = hashlib.blake2b(f"{url}\n{collection}\n{folder.resolve()}".encode(errors="replace"), digest_size=8)
    return home / "penstock" / f"watch-{key.hexdigest()}.json"


class FolderWatch:
    """`run` until stopped. `tell` is given each round that did something, and every error that it goes on after."""

    def __init__(
        self, client: AsyncClient, options: WatchOptions, tell: Callable[[Round | PenstockError], None]
    ) -> None:
        self._client = client
        self._options = options
        self._tell = tell
        self._stopping = asyncio.Event()
        self._seen = _load(options.state)
        self._known: dict[str, str] = {}

    def stop(self) -> None:
        """What is being uploaded is finished and remembered, then `run` returns."""
        self._stopping.set()

    async def run(self) -> None:
        """Raises what a first look at the server raises; later it is told, and tried again."""
        documents = self._client.iter_documents(collection=self._options.collection)
        with suppress(NotFound):  # the default collection, before its first document
            self._known = {document.name: document.sha256 async for document in documents}
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                await self._look()
            except PenstockError as exc:
                self._tell(exc)
            pause_s = max(self._options.every_s, (time.monotonic() - started) * (1 / SCAN_SHARE - 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause_s, 60.0)):
                    await self._stopping.wait()

    async def _look(self) -> None:
        if not self._options.folder.is_dir():
            raise InvalidInput(f"{self._options.folder} is not there just now; nothing is changed until it is back.")
        files = find_files([self._options.folder], self._options.include, self._options.exclude)
        stats = {file.name: stat for file in files if (stat := _stat(file)) is not None}
        changed = [file for file in files if self._has_changed(file.name, stats.get(file.name))]
        for start in range(0, len(changed), SLICE_FILES):
            if self._stopping.is_set():
                return
            done = await self._take(changed[start : start + SLICE_FILES], stats)
            if done:
                self._tell(done)
        if self._options.delete_missing and (gone := self._gone(stats)):
            self._tell(await self._delete(gone))

    def _has_changed(self, name: str, now: Seen | None) -> bool:
        if now is None or time.time() - now.mtime_ns / 1e9 < self._options.settle_s:
            return False
        before = self._seen.get(name)
        same = before is not None and (before.size_bytes, before.mtime_ns) == (now.size_bytes, now.mtime_ns)
        return not same or (before is not None and bool(before.sha256) and self._known.get(name) != before.sha256)

    async def _take(self, files: Sequence[NewFile], stats: Mapping[str, Seen]) -> Round:
        round_ = Round()
        hashes = await asyncio.get_running_loop().run_in_executor(None, _hashes, files)
        fresh = [file for file in files if self._known.get(file.name) != hashes.get(file.name)]
        round_.unchanged = len(files) - len(fresh)
        ingestion = Ingestion(self._client, self._options.collection, uploads_at_once=self._options.uploads_at_once)
        await ingestion.upload(fresh)
        taken = {one.document.name: one.document.sha256 for one in ingestion.accepted.values()}
        round_.uploaded = sum(one.created for one in ingestion.accepted.values())
        round_.refused = list(ingestion.unfit)
        self._known |= taken
        for file in files:
            sha256 = taken.get(file.name) or (hashes.get(file.name, "") if file not in fresh else "")
            self._seen[file.name] = msgspec.structs.replace(stats[file.name], sha256=sha256)
        _save(self._options.state, self._seen)
        return round_

    def _gone(self, there: Mapping[str, Seen]) -> list[str]:
        """Names that this watch has seen in the folder and that are gone from it. None when everything is gone: then it
        is the folder that is away (a disk not mounted), not the files."""
        gone = [name for name in self._seen if name not in there]
        return gone if there or len(self._seen) == 1 else []

    async def _delete(self, names: Sequence[str]) -> Round:
        round_ = Round()
        for name in names:
            page = await self._client.list_documents(collection=self._options.collection, name=name, limit=1)
            for document in page.documents:
                with suppress(NotFound):
                    await self._client.delete_document(document.id)
                    round_.deleted += 1
            self._known.pop(name, None)
            self._seen.pop(name, None)
        _save(self._options.state, self._seen)
        return round_


def _stat(file: NewFile) -> Seen | None:
    assert isinstance(file.content, Path)
    try:
        status = file.content.stat()
    except OSError:  # gone meanwhile
        return None
    return Seen(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _hashes(files: Sequence[NewFile]) -> dict[str, str]:
    """SHA-256 by name; files that cannot be read are missing."""
    return dict(_hashed(files))


def _hashed(files: Sequence[NewFile]) -> Iterator[tuple[str, str]]:
    for file in files:
        assert isinstance(file.content, Path)
        with suppress(OSError), file.content.open("rb") as opened:
            yield file.name, hashlib.file_digest(opened, "sha256").hexdigest()


def _load(path: Path) -> dict[str, Seen]:
    """A state that is missing or damaged is as good as none: the server is asked instead."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Seen])
    except (OSError, msgspec.DecodeError):
        return {}


def _save(path: Path, seen: Mapping[str, Seen]) -> None:
    aside = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(msgspec.json.encode(seen))
        aside.replace(path)
    except OSError as exc:
        raise InvalidInput(f"The state of the watch cannot be kept in {path}: {exc.strerror}. See --state.") from exc
