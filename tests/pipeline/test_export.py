"""A collection as one file: what comes back is what went out, and a damaged file is refused whole."""

import io
import tarfile
from collections.abc import AsyncIterator

import msgspec
import pytest

from penstock.blobs import open_blobs
from penstock.blobs.base import BlobStore
from penstock.errors import InvalidInput
from penstock.fetch import Fetcher, FetchOptions
from penstock.ids import chunk_id
from penstock.jobs import JobStore, open_store
from penstock.ledger import Ledger, open_ledger
from penstock.ledger.batch_records import NewSource, SourceKind
from penstock.pipeline.archives.unpack import ArchiveOptions
from penstock.pipeline.batch_sources import Sources
from penstock.pipeline.batches import Batches
from penstock.pipeline.export import Checksum, Exporter, read_manifest
from penstock.pipeline.gather import Gatherer
from penstock.pipeline.intake import Intake, Upload
from penstock.types import Batch, BatchState, Chunk, CollectionOptions, Document

OPTIONS = CollectionOptions(chunk_tokens=100)


class House:
    """Stores in memory, a collection `docs`, and the ways out of it and into another."""

    def __init__(self, ledger: Ledger, jobs: JobStore, blobs: BlobStore) -> None:
        self.ledger, self.jobs, self.blobs = ledger, jobs, blobs
        self.intake = Intake(ledger, jobs)

    async def add(self, name: str, data: bytes, media_type: str = "text/plain", **metadata: object) -> None:
        blob = await self.blobs.put(data)
        upload = Upload(name=name, sha256=blob.sha256, size_bytes=len(data), media_type=media_type, metadata=metadata)
        [accepted] = await self.intake.add("default", "docs", [upload])
        document = accepted.document
        chunk = Chunk(
            id=chunk_id(document.version_id, 0),
            document_id=document.id,
            version_id=document.version_id,
            collection_id=document.collection_id,
            position=0,
            text=data.decode()[:100],
            start=0,
            end=len(data),
            tokens=2,
        )
        await self.ledger.finish_version(document.version_id, [chunk], pages=0)

    async def exported(self) -> bytes:
        collection = await self.ledger.get_collection("default", "docs")
        return b"".join([block async for block in Exporter(self.ledger, self.blobs, collection).stream()])

    async def imported(self, data: bytes, *, dies_after: int | None = None) -> Batch:
        """Into the collection `copy`. `dies_after`: the worker's death after so many steps."""
        blob = await self.blobs.put(data)
        await self.ledger.create_collection("default", "copy", OPTIONS)
        source = NewSource(kind=SourceKind.EXPORT, name="docs.tar", sha256=blob.sha256)
        batch, _ = await Batches(self.ledger, self.jobs, self.intake).create("default", "copy", [source])
        async with (
            Fetcher(FetchOptions(enabled=False)) as fetcher,
            Sources(ledger=self.ledger, blobs=self.blobs, fetcher=fetcher, archives=ArchiveOptions()) as sources,
        ):
            gatherer = Gatherer(self.ledger, self.jobs, sources)

            async def report(stage: str, done: int, total: int) -> None:
                if dies_after is not None and done >= dies_after:
                    raise ConnectionResetError

            if dies_after is not None:
                with pytest.raises(ConnectionResetError):
                    await gatherer.gather(batch.id, report)
                dies_after = None
            await gatherer.gather(batch.id, report)
        return await self.ledger.batches.get("default", batch.id)

    async def documents(self, collection: str) -> dict[str, Document]:
        listed = (await self.ledger.list_documents("default", collection, limit=1000)).documents
        return {document.name: document for document in listed}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with (
        open_ledger("memory://") as ledger,
        open_store("memory://") as jobs,
        open_blobs("memory://") as blobs,
    ):
        await ledger.create_collection("default", "docs", OPTIONS)
        yield House(ledger, jobs, blobs)


async def test_what_comes_back_is_what_went_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipeline.export.DOCUMENTS_A_MEMBER", 3)
    for n in range(10):
        await house.add(f"folder/{n} 文档.txt", b"Water %d." % (n % 7), n=n)
    data = await house.exported()
    assert read_manifest(data[:65536]).options == OPTIONS
    assert (await house.imported(data)).state is BatchState.RUNNING
    before, after = await house.documents("docs"), await house.documents("copy")
    assert {(d.name, d.sha256, d.media_type, d.metadata["n"]) for d in before.values()} == {
        (d.name, d.sha256, d.media_type, d.metadata["n"]) for d in after.values()
    }


async def test_any_tool_can_read_it(house: House) -> None:
    await house.add("a.txt", b"Water a.")
    await house.add("b.txt", b"Water a.")
    with tarfile.open(fileobj=io.BytesIO(await house.exported())) as archive:
        names = archive.getnames()
        member = archive.extractfile("documents/000000.jsonl")
        assert member is not None
        lines = [msgspec.json.decode(line) for line in member]
    assert [line["name"] for line in lines] == ["b.txt", "a.txt"]
    assert [name.partition("/")[0] for name in names] == [
        "manifest.json",
        "documents",
        "chunks",
        "chunks",
        "blobs",
        "checksum.json",
    ]


@pytest.mark.case(1)
async def test_an_import_whose_worker_dies_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.pipeline.export.DOCUMENTS_A_MEMBER", 4)
    monkeypatch.setattr("penstock.pipeline.gather.SLICE_STEPS", 3)
    for n in range(20):
        await house.add(f"{n}.txt", b"Water %d." % (n % 6))
    batch = await house.imported(await house.exported(), dies_after=6)
    assert batch.items == 20
    assert {d.version for d in (await house.documents("copy")).values()} == {1}


@pytest.mark.case(18)
@pytest.mark.parametrize("how", ["cut", "longer", "changed", "blob missing", "blob exchanged", "size"])
async def test_a_damaged_export_is_refused_whole(house: House, how: str) -> None:
    for n in range(5):
        await house.add(f"{n}.txt", b"Water number %d." % n)
    data = await house.exported()
    match how:
        case "cut":
            damaged = data[: data.index(b"checksum.json")] + bytes(1024)
        case "longer":
            damaged = data[:-1024] + tarfile.TarInfo("documents/9.jsonl").tobuf() + bytes(1024)
        case "changed":
            damaged = data.replace(b"Water number 3.", b"Water number 8.", 1)
        case "blob missing":
            start = data.index(b"blobs/")
            damaged = data[:start] + data[start + 1024 :]
        case "size":
            damaged = _sealed(data.replace(b'"size_bytes":15', b'"size_bytes":99', 1))
        case _:
            damaged = data.replace(b'"name":"3.txt"', b'"name":"9.txt"', 1)
    with pytest.raises(InvalidInput) as caught:
        await house.imported(damaged)
    assert caught.value.code == "damaged_export"
    assert await house.documents("copy") == {}


def _sealed(data: bytes) -> bytes:
    """A tar of the same members, with the checksum that belongs to them: what a stranger may write."""
    checksum, out = Checksum(), io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as archive,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as sealed,
    ):
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            content = file.read()
            if member.name == "checksum.json":
                content = checksum.encoded()
            else:
                checksum.member(member.name)
                checksum.data(content)
            member.size = len(content)
            sealed.addfile(member, io.BytesIO(content))
    return out.getvalue()


async def test_no_blob_is_held_in_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.add("big.txt", b"Water. " * 300_000)

    async def whole(sha256: str) -> bytes:
        raise AssertionError(sha256)

    monkeypatch.setattr(house.blobs, "get", whole)
    await house.imported(await house.exported())
    assert (await house.documents("copy"))["big.txt"].size_bytes == 2_100_000


@pytest.mark.case(29)
async def test_names_and_types_of_strangers_are_checked(house: House) -> None:
    await house.add("../../x.txt", b"Water.")
    await house.add("b.txt", b"Magic.", media_type="text/magic")
    batch = await house.imported(await house.exported())
    items = (await house.ledger.batches.items("default", batch.id)).items
    assert {(item.name, item.error.code if item.error else "") for item in items} == {
        ("x.txt", ""),
        ("b.txt", "unsupported_media"),
    }


async def test_what_is_no_export_is_told_at_the_door(house: House) -> None:
    data = await house.exported()
    assert read_manifest(data).collection == "docs"
    for wrong in (b"x" * 1000, b"", data.replace(b'"version":1', b'"version":2'), data[:520]):
        with pytest.raises(InvalidInput):
            read_manifest(wrong)
