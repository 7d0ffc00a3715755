"""Batches are gathered: every file becomes a document or a refusal, once, however often the worker dies on the way."""

import asyncio
import io
import os
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from penstock.blobs import open_blobs
from penstock.blobs.base import BlobStore
from penstock.errors import Forbidden, InvalidInput, Overloaded, Unavailable
from penstock.fetch import Fetcher, FetchOptions
from penstock.jobs import JobStore, open_store
from penstock.jobs.base import JobFilter
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.base import Accepted
from penstock.ledger.batch_records import NewItem, NewSource, Position, SourceKind
from penstock.pipeline.archives.unpack import ArchiveOptions
from penstock.pipeline.batch_sources import Sources
from penstock.pipeline.batches import Batches
from penstock.pipeline.folders import allowed_folder, files_beneath, open_beneath
from penstock.pipeline.gather import Gatherer
from penstock.pipeline.intake import Intake
from penstock.types import Batch, BatchItemState, BatchState, CollectionOptions, JobState


@dataclass
class House:
    """Stores in memory and what gathers into them. `folder`: the one that batches may name."""

    ledger: Ledger
    jobs: JobStore
    blobs: BlobStore
    folder: Path

    @property
    def batches(self) -> Batches:
        return Batches(self.ledger, self.jobs, Intake(self.ledger, self.jobs))

    async def batch(self, *sources: NewSource) -> Batch:
        return (await self.batches.create("default", "default", sources))[0]

    @asynccontextmanager
    async def gatherer(self, ledger: Ledger | None = None, *, fetching: bool = False) -> AsyncIterator[Gatherer]:
        async with (
            Fetcher(FetchOptions(enabled=fetching, allow_private=True, ports=())) as fetcher,
            Sources(
                ledger=self.ledger,
                blobs=self.blobs,
                fetcher=fetcher,
                archives=ArchiveOptions(max_file_bytes=4_000_000),
                allowed_folders=[self.folder],
            ) as sources,
        ):
            yield Gatherer(ledger or self.ledger, self.jobs, sources)

    async def gather(self, batch: Batch, *, fetching: bool = False) -> Batch:
        async with self.gatherer(fetching=fetching) as gatherer:
            await gatherer.gather(batch.id, nobody)
        return await self.ledger.batches.get("default", batch.id)

    async def told(self, batch: Batch) -> dict[str, str]:
        """State or code of the refusal by name."""
        items = (await self.ledger.batches.items("default", batch.id, limit=1000)).items
        return {item.name: item.error.code if item.error else item.state.value for item in items}

    async def archive(self, files: dict[str, bytes]) -> NewSource:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        blob = await self.blobs.put(out.getvalue())
        return NewSource(kind=SourceKind.ARCHIVE, name="a.zip", sha256=blob.sha256)


async def nobody(stage: str, done: int, total: int) -> None:
    """Takes progress."""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with (
        open_ledger("memory://") as ledger,
        open_store("memory://") as jobs,
        open_blobs("memory://") as blobs,
    ):
        (tmp_path / "docs").mkdir()
        yield House(ledger, jobs, blobs, tmp_path / "docs")


async def test_an_archive_becomes_documents_and_refusals(house: House) -> None:
    nested = (await house.archive({"x.txt": b"x"})).sha256
    assert nested is not None
    source = await house.archive(
        {
            "a.txt": b"one",
            "b/c.md": b"# two",
            "big.txt": b"words " * 500_000,
            "../evil.txt": b"evil",
            "tool.exe": b"MZ\x00\x01\x02" * 100,
            "inner.zip": await house.blobs.get(nested),
            "empty.txt": b"",
            ".DS_Store": b"x",
        }
    )
    batch = await house.gather(await house.batch(source))
    assert await house.told(batch) == {
        "a.txt": "pending",
        "b/c.md": "pending",
        "big.txt": "pending",
        "../evil.txt": "unsafe_name",
        "tool.exe": "unsupported_media",
        "inner.zip": "nested_archive",
        "empty.txt": "empty_file",
    }
    assert batch.state is BatchState.RUNNING
    assert await house.jobs.count(JobFilter(kinds=frozenset({"ingest"}))) == 3


async def test_the_same_archive_again_changes_nothing(house: House) -> None:
    source = await house.archive({"a.txt": b"one", "b.txt": b"two"})
    await house.gather(await house.batch(source))
    again = await house.gather(await house.batch(source))
    assert (again.items, again.unchanged) == (2, 2)
    assert await house.jobs.count(JobFilter(kinds=frozenset({"ingest"}))) == 2


@pytest.mark.case(1)
@pytest.mark.parametrize("kind", ["archive", "folder"])
async def test_a_worker_that_dies_anywhere_is_taken_over_without_loss_or_double(house: House, kind: str) -> None:
    names = {f"{n:03}.txt" for n in range(450)}
    if kind == "archive":
        source = await house.archive({name: name.encode() for name in sorted(names)})
    else:
        for name in names:
            (house.folder / name).write_text(name)
        source = NewSource(kind=SourceKind.FOLDER, name=str(house.folder))
    batch = await house.batch(source)
    deaths = 0
    while (await house.ledger.batches.get("default", batch.id)).state is BatchState.GATHERING:
        dying = asyncio.Event()

        async def report(stage: str, done: int, total: int, dying: asyncio.Event = dying) -> None:
            dying.set()

        async with house.gatherer() as gatherer:
            task = asyncio.create_task(gatherer.gather(batch.id, report))
            wait = asyncio.create_task(dying.wait())
            await asyncio.wait({task, wait}, return_when=asyncio.FIRST_COMPLETED)
            wait.cancel()
            deaths += task.cancel()
            await asyncio.wait({task})
    assert deaths >= 2
    page = await house.ledger.batches.items("default", batch.id, limit=1000)
    assert sorted(item.name for item in page.items) == sorted(names)
    documents = (await house.ledger.list_documents("default", limit=1000)).documents
    assert {document.name for document in documents} == names
    assert {document.version for document in documents} == {1}


async def test_a_batch_waits_while_the_queue_is_full(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = await house.batch(await house.archive({"a.txt": b"one"}))
    enqueue = house.jobs.enqueue
    refused: list[object] = []

    async def full_at_first(jobs: object) -> object:
        if not refused:
            refused.append(jobs)
            raise Overloaded("full", retry_after_s=0.01)
        return await enqueue(jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(house.jobs, "enqueue", full_at_first)
    assert (await house.gather(batch)).state is BatchState.RUNNING
    assert await house.jobs.count(JobFilter(kinds=frozenset({"ingest"}))) == 1


@pytest.mark.case(17)
async def test_a_full_disk_stops_a_batch_where_it_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = await house.batch(await house.archive({"a.txt": b"one", "b.txt": b"two"}))
    with monkeypatch.context() as patch:

        async def full(*_: object, **__: object) -> None:
            raise Unavailable("The disk is full.")

        patch.setattr(house.blobs, "put", full)
        with pytest.raises(Unavailable):
            await house.gather(batch)
    assert (await house.ledger.batches.get("default", batch.id)).items == 0
    assert (await house.gather(batch)).items == 2


@pytest.mark.case(29)
async def test_a_folder_is_taken_with_all_below_it_and_nothing_beside_it(house: House, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (house.folder / "a.txt").write_text("one")
    (house.folder / "b").mkdir()
    (house.folder / "b" / "c.txt").write_text("two")
    (house.folder / "b" / "no.tmp").write_text("two")
    (house.folder / ".hidden.txt").write_text("hidden")
    (house.folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (house.folder / "links").symlink_to(tmp_path)
    os.mkfifo(house.folder / "pipe.txt")
    spec = {"exclude": ["*.tmp"], "metadata": {"from": "folder"}}
    batch = await house.gather(await house.batch(NewSource(kind=SourceKind.FOLDER, name=str(house.folder), spec=spec)))
    assert await house.told(batch) == {
        "a.txt": "pending",
        "b/c.txt": "pending",
        "link.txt": "not_a_file",
        "links": "not_a_file",
        "pipe.txt": "not_a_file",
    }
    [document] = (await house.ledger.list_documents("default", name="a.txt")).documents
    assert document.metadata == {"from": "folder"}


@pytest.mark.case(29)
def test_only_folders_beneath_an_allowed_one(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "file").write_text("x")
    (tmp_path / "into").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path / "into")
    (tmp_path / "door").symlink_to(tmp_path / "in")
    allowed = [tmp_path / "in"]
    assert allowed_folder(f"{tmp_path}/in/deep", allowed) == tmp_path / "in" / "deep"
    assert allowed_folder(f"{tmp_path}/door/deep", allowed) == tmp_path / "in" / "deep"
    for path in ("in/../into", "into", "in/out", "in/nowhere", "in/file", "in/../../etc"):
        with pytest.raises(Forbidden, match="allowed_folders"):
            allowed_folder(f"{tmp_path}/{path}", allowed)
    with pytest.raises(InvalidInput):
        allowed_folder("in", allowed)
    with pytest.raises(Forbidden):
        allowed_folder(f"{tmp_path}/in", [])


@pytest.mark.case(29)
def test_a_folder_that_becomes_a_link_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("secret")
    with open_beneath(tmp_path / "root", "sub/a.txt") as file:
        assert file.read() == b"mine"
    (tmp_path / "root" / "sub" / "a.txt").unlink()
    (tmp_path / "root" / "sub").rmdir()
    (tmp_path / "root" / "sub").symlink_to(tmp_path / "other")
    with pytest.raises(InvalidInput):
        open_beneath(tmp_path / "root", "sub/a.txt")


def test_a_folder_is_walked_in_one_order_from_anywhere(tmp_path: Path) -> None:
    for name in ("a/x", "a/b/y", "a/c", "a.txt", "b", "d/e/f", "z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    every = list(files_beneath(tmp_path))
    assert sorted(every) == sorted(["a/x", "a/b/y", "a/c", "a.txt", "b", "d/e/f", "z"])
    for n, name in enumerate(every):
        assert list(files_beneath(tmp_path, after=name)) == every[n + 1 :]


async def test_urls_that_may_not_be_fetched_are_refused_one_by_one(house: House) -> None:
    sources = [NewSource(kind=SourceKind.URL, name=f"https://example.com/{n}.txt") for n in range(20)]
    batch = await house.gather(await house.batch(*sources))
    assert batch.counts == {BatchItemState.REFUSED: 20}
    retried = await house.batches.retry("default", batch.id)
    assert (retried.documents, retried.gathering) == (0, True)
    again = await house.gather(batch)
    assert again.counts == {BatchItemState.REFUSED: 20}
    assert again.items == 20


async def test_urls_become_documents_named_after_them(house: House) -> None:
    (house.folder / "a.txt").write_text("Water.")
    (house.folder / "tool.exe").write_bytes(b"MZ\0\1\2" * 100)
    with serving(house.folder) as url:
        names = ("a.txt", "tool.exe", "nothing.txt")
        sources = [NewSource(kind=SourceKind.URL, name=f"{url}/{name}") for name in names]
        batch = await house.gather(await house.batch(*sources), fetching=True)
    assert batch.counts == {BatchItemState.PENDING: 1, BatchItemState.REFUSED: 2}
    [document] = (await house.ledger.list_documents("default")).documents
    assert document.name == f"{url.removeprefix('http://')}/a.txt"
    assert document.metadata == {"url": f"{url}/a.txt"}
    assert await house.blobs.get(document.sha256) == b"Water."


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A web server over a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.case(10)
async def test_a_cancelled_batch_ends_with_all_its_jobs(house: House) -> None:
    batch = await house.gather(await house.batch(await house.archive({"a.txt": b"one", "b.txt": b"two"})))
    cancelled = await house.batches.cancel("default", batch.id)
    assert cancelled.counts == {BatchItemState.CANCELLED: 2}
    where = JobFilter(kinds=frozenset({"ingest"}))
    assert {job.state for job in (await house.jobs.list(where)).jobs} == {JobState.CANCELLED}
    retried = await house.batches.retry("default", batch.id)
    assert (retried.documents, retried.gathering) == (2, True)
    assert {job.state for job in (await house.jobs.list(where)).jobs} == {JobState.QUEUED}


async def test_a_batch_cancelled_on_its_way_adds_nothing_more(house: House) -> None:
    batch = await house.batch(await house.archive({"a.txt": b"one"}))

    class Cancelling:
        """Cancels in the moment before the first step is recorded."""

        def __getattr__(self, name: str) -> object:
            return getattr(house.ledger.batches, name)

        async def add(self, batch_id: str, seen: Position, to: Position, items: list[NewItem]) -> list[Accepted] | None:
            await house.batches.cancel("default", batch_id)
            return await house.ledger.batches.add(batch_id, seen, to, items)  # type: ignore[return-value]

    class Dealing:
        batches = Cancelling()

    async with house.gatherer(Dealing()) as gatherer:  # type: ignore[arg-type]
        await gatherer.gather(batch.id, nobody)
    assert (await house.ledger.batches.get("default", batch.id)).state is BatchState.CANCELLED
    assert not (await house.ledger.list_documents("default")).documents


async def test_a_collection_is_copied_without_its_bytes(house: House) -> None:
    await house.gather(await house.batch(await house.archive({f"{n}.txt": b"%d" % n for n in range(5)})))
    await house.ledger.create_collection("default", "copy", CollectionOptions())
    batch, _ = await house.batches.create("default", "copy", [NewSource(kind=SourceKind.COLLECTION, name="default")])
    await house.gather(batch)
    copied = (await house.ledger.list_documents("default", "copy")).documents
    original = (await house.ledger.list_documents("default", "default")).documents
    assert {(d.name, d.sha256) for d in copied} == {(d.name, d.sha256) for d in original}
