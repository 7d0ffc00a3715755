"""A collection as one file, and back: a tar that any tool can read, written and read as a stream.

manifest.json              what it is: format, version, the collection's name and options
documents/000000.jsonl     a hundred documents a member: name, type, metadata, and the SHA-256 of their bytes
chunks/000000.jsonl        their searchable passages, for other tools; an import makes them anew
blobs/<sha256>             the bytes of those documents, each once
checksum.json              last: the SHA-256 over all members before it, so that a cut or changed file is noticed
"""

import hashlib
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from io import BytesIO

import msgspec

from penstock.blobs.base import BlobStore
from penstock.errors import DataError, InvalidInput, NotFound
from penstock.ledger.base import Ledger
from penstock.types import JSON, Collection, CollectionOptions, Document

FORMAT = "penstock-export"
VERSION = 1
MANIFEST = "manifest.json"
CHECKSUM = "checksum.json"
DOCUMENTS = "documents/"
BLOBS = "blobs/"
DOCUMENTS_A_MEMBER = 100
CHUNKS_A_PAGE = 500
MAX_MEMBER_BYTES = 16 * 1024 * 1024
"""Of the members that are read whole: a hundred documents have 2 MiB of metadata at most. Blobs may be larger."""
BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    format: str
    version: int
    collection: str
    options: CollectionOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedDocument:
    """The newest version of a document."""

    name: str
    sha256: str
    size_bytes: int
    media_type: str
    metadata: Mapping[str, JSON] = field(default_factory=dict)


class Checksum:
    """Over the members' names and contents, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def member(self, name: str) -> None:
        self._hash.update(b"\0" + name.encode(errors="replace") + b"\0")

    def data(self, block: bytes) -> None:
        self._hash.update(block)

    def encoded(self) -> bytes:
        return msgspec.json.encode({"sha256": self._hash.hexdigest()})


class Exporter:
    """Writes one collection; used once. Holds a hundred documents' records in memory, and a block of bytes."""

    def __init__(self, ledger: Ledger, blobs: BlobStore, collection: Collection, *, chunks: bool = True) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._collection = collection
        self._chunks = chunks
        self._checksum = Checksum()
        self._written: set[str] = set()

    async def stream(self) -> AsyncIterator[bytes]:
        """The file in blocks. What changes in the collection meanwhile is in it or is not."""
        manifest = Manifest(
            format=FORMAT, version=VERSION, collection=self._collection.name, options=self._collection.options
        )
        async for block in self._member(MANIFEST, msgspec.json.encode(manifest)):
            yield block
        cursor, number = None, 0
        while True:
            page = await self._ledger.list_documents(
                self._collection.tenant, self._collection.name, cursor=cursor, limit=DOCUMENTS_A_MEMBER
            )
            async for block in self._page(number, page.documents):
                yield block
            number += 1
            if (cursor := page.cursor) is None:
                break
        for block in _tar_member(CHECKSUM, self._checksum.encoded()):
            yield block
        yield bytes(2 * tarfile.BLOCKSIZE)

    async def _page(self, number: int, documents: Sequence[Document]) -> AsyncIterator[bytes]:
        lines = [
            ExportedDocument(
                name=document.name,
                sha256=document.sha256,
                size_bytes=document.size_bytes,
                media_type=document.media_type,
                metadata=document.metadata,
            )
            for document in documents
        ]
        async for block in self._member(f"{DOCUMENTS}{number:06}.jsonl", _json_lines(lines)):
            yield block
        if self._chunks:
            async for block in self._chunk_members(number, documents):
                yield block
        for document in documents:
            if document.sha256 in self._written:
                continue
            self._written.add(document.sha256)
            async for block in self._blob(document):
                yield block

    async def _chunk_members(self, number: int, documents: Sequence[Document]) -> AsyncIterator[bytes]:
        part = 0
        for document in documents:
            after = -1
            while True:
                try:
                    chunks = await self._ledger.list_chunks(
                        document.tenant, document.id, after=after, limit=CHUNKS_A_PAGE
                    )
                except NotFound:  # deleted meanwhile
                    break
                if chunks:
                    lines = [{"document": document.name, **msgspec.to_builtins(chunk)} for chunk in chunks]
                    async for block in self._member(f"chunks/{number:06}-{part:06}.jsonl", _json_lines(lines)):
                        yield block
                    part, after = part + 1, chunks[-1].position
                if len(chunks) < CHUNKS_A_PAGE:
                    break

    async def _blob(self, document: Document) -> AsyncIterator[bytes]:
        name = BLOBS + document.sha256
        self._checksum.member(name)
        yield _tar_header(name, document.size_bytes)
        seen = 0
        async with aclosing(self._blobs.blocks(document.sha256)) as blocks:
            async for block in blocks:
                seen += len(block)
                self._checksum.data(block)
                yield block
        if seen != document.size_bytes:
            raise DataError(f"The blob {document.sha256} has {seen:,} bytes, not {document.size_bytes:,}.")
        yield _tar_padding(seen)

    async def _member(self, name: str, data: bytes) -> AsyncIterator[bytes]:
        self._checksum.member(name)
        self._checksum.data(data)
        for block in _tar_member(name, data):
            yield block


def _json_lines(lines: Sequence[object]) -> bytes:
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _tar_member(name: str, data: bytes) -> Sequence[bytes]:
    blocks = [data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES)]
    return [_tar_header(name, len(data)), *blocks, _tar_padding(len(data))]


def _tar_header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size_bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _tar_padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


def read_manifest(head: bytes) -> Manifest:
    """What a file says of itself, by its first 64 KiB. `InvalidInput` for one that is no export, or a newer one."""
    try:
        with tarfile.open(fileobj=BytesIO(head), mode="r:") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST or first.size > len(head):
                raise _no_export()
            file = archive.extractfile(first)
            assert file is not None
            manifest = msgspec.json.decode(file.read(), type=Manifest)
    except (tarfile.TarError, msgspec.DecodeError, EOFError, AssertionError) as exc:
        raise _no_export() from exc
    if manifest.format != FORMAT or manifest.version > VERSION:
        raise InvalidInput(
            f"The file is of format {manifest.format!a:.60} {manifest.version}; this server reads {FORMAT} {VERSION}.",
            code="damaged_export",
        )
    return manifest


def read_documents(data: bytes) -> list[ExportedDocument]:
    """A member `documents/…`. `InvalidInput` when it is damaged."""
    try:
        return [msgspec.json.decode(line, type=ExportedDocument) for line in data.splitlines()]
    except msgspec.DecodeError as exc:
        raise damaged(f"a list of documents cannot be read ({exc})") from exc


def damaged(why: str) -> InvalidInput:
    return InvalidInput(f"The export is damaged: {why}. Nothing of it was taken.", code="damaged_export")


def _no_export() -> InvalidInput:
    return InvalidInput("The file is no export of a collection (`penstock collections export`).", code="damaged_export")
