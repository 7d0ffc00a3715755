"""An export read back, in two passes: the first only checks that all of it is there and as it was written."""

import hashlib
from collections.abc import AsyncIterator, Sized
from dataclasses import dataclass

from penstock.blobs.base import BlobStore
from penstock.pipeline.archives.unpack import Unpacked
from penstock.pipeline.export import (
    BLOBS,
    CHECKSUM,
    DOCUMENTS,
    MAX_MEMBER_BYTES,
    Checksum,
    ExportedDocument,
    damaged,
    read_documents,
)


@dataclass(frozen=True, slots=True)
class Ready:
    """A document whose bytes are in the blob store. `at`: its place in the export."""

    at: tuple[int, int]
    document: ExportedDocument


async def verify(members: AsyncIterator[Unpacked]) -> None:
    """Raises `InvalidInput` (`damaged_export`) unless every member is as it was written, and every blob is there,
    before the next list of documents."""
    checksum, missing, there, said = Checksum(), dict[str, int](), dict[str, int](), b""
    async for member in members:
        if member.name == CHECKSUM:
            said = await _whole(member)
            continue
        if said:
            raise damaged("something stands behind its end")
        checksum.member(member.name)
        if member.name.startswith(DOCUMENTS):
            _check_missing(missing)
            data = await _whole(member)
            checksum.data(data)
            for document in read_documents(data):
                known = there if document.sha256 in there else missing
                if known.setdefault(document.sha256, document.size_bytes) != document.size_bytes:
                    raise damaged(f"{document.name[:80]!a} is not as long as is said")
            continue
        own, size_bytes = hashlib.sha256(), 0
        async for block in member.blocks:
            checksum.data(block)
            own.update(block)
            size_bytes += len(block)
        if member.name.startswith(BLOBS):
            if member.name != BLOBS + own.hexdigest() or missing.pop(own.hexdigest(), size_bytes) != size_bytes:
                raise damaged(f"{member.name[:80]!a} holds something else")
            there[own.hexdigest()] = size_bytes
    if said != checksum.encoded():
        raise damaged("its end is missing" if not said else "it was changed")
    _check_missing(missing)


def _check_missing(missing: Sized) -> None:
    if missing:
        raise damaged(f"the bytes of {len(missing)} document(s) are missing")


async def documents(members: AsyncIterator[Unpacked], blobs: BlobStore, after: tuple[int, int]) -> AsyncIterator[Ready]:
    """The documents behind `after`, each once its bytes are stored; for an export that was verified."""
    stored: set[str] = set()
    waiting: dict[str, list[ExportedDocument]] = {}
    async for member in members:
        ready: list[ExportedDocument] = []
        if member.name.startswith(DOCUMENTS):
            for document in read_documents(await _whole(member)):
                if document.sha256 in stored:
                    ready.append(document)
                else:
                    waiting.setdefault(document.sha256, []).append(document)
        elif member.name.startswith(BLOBS) and (ready := waiting.pop(member.name.removeprefix(BLOBS), [])):
            stored.add(ready[0].sha256)
            if (member.number, len(ready)) > after:
                await blobs.put(member.blocks)
        for number, document in enumerate(ready, 1):
            if (member.number, number) > after:
                yield Ready((member.number, number), document)


async def _whole(member: Unpacked) -> bytes:
    data = bytearray()
    async for block in member.blocks:
        data += block
        if len(data) > MAX_MEMBER_BYTES:
            raise damaged(f"{member.name[:80]!a} is too large")
    return bytes(data)
