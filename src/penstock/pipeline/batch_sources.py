"""Where the documents of a batch come from, one way a kind: each file a step, made into a version or a refusal."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, ParamSpec, Self, TypeVar

import msgspec

from penstock.blobs.base import BlobStore
from penstock.blobs.opening import opened
from penstock.blobs.spool import storage_errors
from penstock.errors import InvalidInput, UnsupportedMedia
from penstock.fetch import Fetcher
from penstock.ids import new_id
from penstock.ledger.base import Ledger, NewVersion
from penstock.ledger.batch_records import BatchWork, NewItem, Position, Source, SourceKind
from penstock.pipeline import importing
from penstock.pipeline.archives.unpack import ArchiveOptions, Unpacked, unpack
from penstock.pipeline.export import ExportedDocument
from penstock.pipeline.folders import allowed_folder, files_beneath, open_beneath, wanted
from penstock.pipeline.media import HEAD_BYTES, SUPPORTED, archive_kind, sniff
from penstock.pipeline.names import clean_name, entry_name, is_hidden, shown
from penstock.types import JSON, Failure

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
MAX_METADATA_BYTES = 16 * 1024
SMALL_BYTES = 1024 * 1024
BLOCK_BYTES = 256 * 1024
FILES_A_LOOK = 500
URL_HELD_BYTES = 1024 * 1024
"""A URL counts as so much, so that sixteen make a slice: what was fetched is recorded soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Once this and all before it is done, the batch is at `position`. `make` gives the item; None: there is none.

    `held_bytes`: what the step keeps in memory until then.
    """

    position: Position
    kind: SourceKind
    make: Callable[[], Awaitable[NewItem]] | None = None
    held_bytes: int = 0

    @property
    def takes_work(self) -> bool:
        return self.make is not None


class Sources:
    """Opened and closed as an async context manager. `allowed_folders`: beneath these, folders may be taken."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        blobs: BlobStore,
        fetcher: Fetcher,
        archives: ArchiveOptions,
        allowed_folders: Sequence[Path] = (),
        spool_folder: Path | None = None,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._fetcher = fetcher
        self._archives = archives
        self._allowed_folders = allowed_folders
        self._spool_folder = spool_folder
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="gather")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def make(self, step: Step) -> NewItem | None:
        """What a step comes to. Raises what stores raise; whatever is wrong with the file is the item's error."""
        return await step.make() if step.make else None

    def steps(self, work: BatchWork, source: Source, after: str) -> AsyncGenerator[Step, None]:
        """The source's files behind entry `after`."""
        match source.kind:
            case SourceKind.FILE:
                return self._file(source, after)
            case SourceKind.ARCHIVE:
                return self._archive(source, after)
            case SourceKind.URL:
                return self._url(source, after)
            case SourceKind.FOLDER:
                return self._folder(source, after)
            case SourceKind.COLLECTION:
                return self._collection(work, source, after)
            case SourceKind.EXPORT:
                return self._export(source, after)

    async def _file(self, source: Source, after: str) -> AsyncGenerator[Step, None]:
        if after:
            return

        async def make() -> NewItem:
            if problem := source.spec.get("error"):
                return _refused(source, source.name, InvalidInput(problem["message"], code=problem["code"]))
            assert source.sha256 is not None
            return _item(source, source.name, _version(source.name, source.sha256, source.spec))

        yield Step(position=Position(source=source.seq, entry="1"), kind=source.kind, make=make)

    async def _url(self, source: Source, after: str) -> AsyncGenerator[Step, None]:
        if after:
            return
        yield Step(
            position=Position(source=source.seq, entry="1"),
            kind=source.kind,
            make=lambda: self._fetch(source),
            held_bytes=URL_HELD_BYTES,
        )

    async def _fetch(self, source: Source) -> NewItem:
        try:
            name = clean_name(source.name.partition("://")[2].partition("#")[0][:1000])
            async with self._fetcher.open(
                source.name, accept=_accept, max_bytes=self._archives.max_file_bytes
            ) as download:
                blob = await self._blobs.put(download.blocks)
        except InvalidInput as exc:
            return _refused(source, source.name, exc)
        metadata = {"url": download.url, **source.spec.get("metadata", {})}
        spec = {"size_bytes": blob.size_bytes, "media_type": download.media_type, "metadata": metadata}
        return _item(source, name, _version(name, blob.sha256, spec))

    async def _folder(self, source: Source, after: str) -> AsyncGenerator[Step, None]:
        folder = await self._in_thread(allowed_folder, source.name, self._allowed_folders)
        include, exclude = source.spec.get("include", ()), source.spec.get("exclude", ())
        names = files_beneath(folder, os.fsdecode(after.encode("latin-1")))
        while some := await self._in_thread(_take, names, FILES_A_LOOK):
            for name in some:
                if wanted(name, include, exclude):
                    yield Step(
                        position=Position(source=source.seq, entry=os.fsencode(name).decode("latin-1")),
                        kind=source.kind,
                        make=self._file_maker(source, folder, name),
                    )

    def _file_maker(self, source: Source, folder: Path, name: str) -> Callable[[], Awaitable[NewItem]]:
        async def make() -> NewItem:
            async with AsyncExitStack() as stack:
                try:
                    opening = opened(self._executor, lambda: open_beneath(folder, name))
                    file = await stack.enter_async_context(opening)
                except InvalidInput as exc:
                    return _refused(source, name, exc)
                return await self._store(source, name, clean_name, self._blocks(file))

        return make

    async def _blocks(self, file: IO[bytes]) -> AsyncIterator[bytes]:
        while block := await self._in_thread(file.read, BLOCK_BYTES):
            yield block

    async def _archive(self, source: Source, after: str) -> AsyncGenerator[Step, None]:
        number = int(after or 0)
        async with self._spooled(source) as file:
            try:
                async with aclosing(unpack(file, self._archives, skip=number)) as entries:
                    async for entry in entries:
                        number = entry.number
                        if not is_hidden(entry.name):
                            yield await self._unpacked(source, entry)
            except InvalidInput as exc:
                item = _refused(source, source.name, exc)
                yield Step(
                    position=Position(source=source.seq, entry=str(number)), kind=source.kind, make=_already(item)
                )

    async def _unpacked(self, source: Source, entry: Unpacked) -> Step:
        """A small file is read and stored later, with others; a large one is stored as it comes."""
        position = Position(source=source.seq, entry=str(entry.number))
        held: list[bytes] = []
        size = 0
        try:
            async for block in entry.blocks:
                held.append(block)
                size += len(block)
                if size > SMALL_BYTES:
                    item = await self._store(source, entry.name, entry_name, _joined(held, entry.blocks))
                    return Step(position=position, kind=source.kind, make=_already(item))
        except InvalidInput as exc:
            return Step(position=position, kind=source.kind, make=_already(_refused(source, entry.name, exc)))
        data = b"".join(held)
        return Step(
            position=position,
            kind=source.kind,
            make=lambda: self._store(source, entry.name, entry_name, _joined([data])),
            held_bytes=size,
        )

    async def _export(self, source: Source, after: str) -> AsyncGenerator[Step, None]:
        """Read whole before anything of it is taken."""
        async with self._spooled(source) as file:
            async with aclosing(unpack(file, self._archives)) as members:
                await importing.verify(members)
            await self._in_thread(file.seek, 0)
            number, _, index = (after or "0.0").partition(".")
            async with aclosing(unpack(file, self._archives)) as members:
                async for ready in importing.documents(members, self._blobs, (int(number), int(index))):
                    yield Step(
                        position=Position(source=source.seq, entry=f"{ready.at[0]}.{ready.at[1]}"),
                        kind=source.kind,
                        make=_already(_imported(source, ready.document)),
                    )

    async def _collection(self, work: BatchWork, source: Source, after: str) -> AsyncGenerator[Step, None]:
        """Another collection's documents, as they were uploaded; newest first, as they are listed."""
        cursor: str | None = after or None
        while True:
            page = await self._ledger.list_documents(work.tenant, source.name, cursor=cursor, limit=FILES_A_LOOK)
            for document in page.documents:
                spec = {
                    "size_bytes": document.size_bytes,
                    "media_type": document.media_type,
                    "metadata": document.metadata,
                }
                item = _item(source, document.name, _version(document.name, document.sha256, spec))
                yield Step(
                    position=Position(source=source.seq, entry=document.id), kind=source.kind, make=_already(item)
                )
            if (cursor := page.cursor) is None:
                return

    async def _store(
        self, source: Source, name: str, cleaned: Callable[[str], str], blocks: AsyncIterator[bytes]
    ) -> NewItem:
        """The file in the blob store, if it is one that can be read."""
        try:
            label = cleaned(name)
            head = bytearray()
            rest = aiter(blocks)
            while len(head) < HEAD_BYTES and (block := await anext(rest, b"")):
                head += block
            media_type = _accept(label, bytes(head[:HEAD_BYTES]), None)
            blob = await self._blobs.put(_joined([bytes(head)], rest), limit_bytes=self._archives.max_file_bytes)
        except InvalidInput as exc:
            return _refused(source, name, exc)
        spec = {"size_bytes": blob.size_bytes, "media_type": media_type, "metadata": source.spec.get("metadata", {})}
        return _item(source, label, _version(label, blob.sha256, spec))

    @asynccontextmanager
    async def _spooled(self, source: Source) -> AsyncGenerator[IO[bytes], None]:
        """The source's bytes as a file that nobody else sees, at its start; for what cannot read a blob as a stream."""
        assert source.sha256 is not None
        with tempfile.TemporaryFile(dir=self._spool_folder, buffering=0) as file:
            async with aclosing(self._blobs.blocks(source.sha256)) as blocks:
                async for block in blocks:
                    await self._in_thread(_write, file, block)
            await self._in_thread(file.seek, 0)
            yield file

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))


def _accept(name: str, head: bytes, declared: str | None) -> str:
    if archive_kind(name, head):
        raise InvalidInput(
            "It is an archive inside of the batch's own. Unpack it, or send it as such.", code="nested_archive"
        )
    return sniff(name, head, declared)


def _item(source: Source, name: str, version: NewVersion) -> NewItem:
    return NewItem(source=source.seq, name=name, version=version)


def _imported(source: Source, document: ExportedDocument) -> NewItem:
    """An export is a file that anybody can write: what is in it is checked like any upload."""
    try:
        name = clean_name(document.name)
    except InvalidInput as exc:
        return _refused(source, document.name, exc)
    if document.media_type not in SUPPORTED:
        strange = UnsupportedMedia(f"Its type {document.media_type[:80]!a} is not one that can be read.")
        return _refused(source, document.name, strange)
    if len(msgspec.json.encode(document.metadata)) > MAX_METADATA_BYTES:
        heavy = InvalidInput(f"Its metadata is larger than {MAX_METADATA_BYTES:,} bytes.")
        return _refused(source, document.name, heavy)
    spec = {"size_bytes": document.size_bytes, "media_type": document.media_type, "metadata": document.metadata}
    return _item(source, name, _version(name, document.sha256, spec))


def _refused(source: Source, name: str, exc: InvalidInput) -> NewItem:
    return NewItem(
        source=source.seq,
        name=shown(name),
        error=Failure(code=exc.code, message=exc.message[:1000], at=time.time()),
    )


def _version(name: str, sha256: str, spec: Mapping[str, JSON]) -> NewVersion:
    return NewVersion(
        name=name,
        sha256=sha256,
        size_bytes=spec["size_bytes"],
        media_type=spec["media_type"],
        job_id=new_id("job"),
        metadata=spec.get("metadata", {}),
    )


def _already(item: NewItem) -> Callable[[], Awaitable[NewItem]]:
    async def make() -> NewItem:
        return item

    return make


async def _joined(first: Sequence[bytes], rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    for block in first:
        yield block
    if rest is not None:
        async for block in rest:
            yield block


def _take(names: Iterator[str], n: int) -> list[str]:
    return list(islice(names, n))


def _write(file: IO[bytes], block: bytes) -> None:
    rest = memoryview(block)
    with storage_errors():
        while rest:
            rest = rest[file.write(rest) :]
