"""An unpacking process, the archive as its stdin, frames on its stdout: `python -m penstock.pipeline.archives.child`
with the numbers of `Arguments`.

What an archive says of itself is not believed: sizes are counted, the directory of a zip is counted before it is read,
and all of it happens under a limit of memory and processor time. It writes no files and may be killed at any moment.
"""

import gzip
import resource
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import msgspec

from penstock.pipeline.archives.wire import BLOCK_BYTES, FRAME, Ending, Frame, Named
from penstock.pipeline.parsing.limits import die_with_parent, forbid_dumps_and_files, limit_memory

CPU_S = 900
_DIRECTORY_ENTRY = b"PK\x01\x02"
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, OSError, ValueError, KeyError,
    NotImplementedError, RuntimeError, struct.error, IndexError, OverflowError,
)  # fmt: skip
"""What the standard library raises for bytes that are not what they say."""


class Refused(Exception):
    """Of one file, or, outside of one, of the archive."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.ending = Ending(code=code, message=message)


class Arguments(NamedTuple):
    parent_pid: int
    memory_bytes: int
    max_file_bytes: int
    max_total_bytes: int
    max_entries: int
    skip: int


def main() -> None:
    arguments = Arguments(*map(int, sys.argv[1:]))
    die_with_parent(arguments.parent_pid)
    forbid_dumps_and_files()
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    limit_memory(arguments.memory_bytes)
    Unpacker(sys.stdin.buffer, sys.stdout.buffer, arguments).run()


class Unpacker:
    """One archive, its files in its own order."""

    def __init__(self, archive: BinaryIO, out: BinaryIO, arguments: Arguments) -> None:
        self._archive = archive
        self._out = out
        self._limits = arguments
        self._total_bytes = 0

    def run(self) -> None:
        try:
            if self._archive.read(4) in {b"PK\x03\x04", b"PK\x05\x06"}:
                self._zip()
            else:
                self._tar()
            ending = Ending()
        except Refused as refused:
            ending = refused.ending
        except MemoryError:
            ending = Ending(code="memory_limit", message="The archive needs more memory than unpacking may take.")
        except _DAMAGED as exc:
            ending = Ending(code="damaged_archive", message=f"The archive is damaged: {exc!s:.300}.")
        self._send(Frame.DONE, msgspec.json.encode(ending))
        self._out.flush()

    def _zip(self) -> None:
        self._count_directory()
        with zipfile.ZipFile(self._archive) as archive:
            for number, info in enumerate(archive.infolist(), 1):
                if info.is_dir() or number <= self._limits.skip:
                    self._total_bytes += 0 if info.is_dir() else info.file_size
                    continue
                self._entry(number, _zip_name(info), self._zip_blocks(archive, info))

    def _count_directory(self) -> None:
        """Before it is read: a million entries would be a gigabyte of objects."""
        self._archive.seek(0)
        entries, tail = 0, b""
        while block := self._archive.read(1 << 20):
            entries += (tail + block).count(_DIRECTORY_ENTRY)
            tail = block[-3:]
        if entries > self._limits.max_entries:
            raise self._too_many()
        self._archive.seek(0)

    def _zip_blocks(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG}:
            raise Refused("not_a_file", "It is a link or a device, not a file.")
        if info.flag_bits & 1:
            raise Refused("encrypted", "It is protected by a password.")
        self._check_size(info.file_size)
        with archive.open(info) as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def _tar(self) -> None:
        self._archive.seek(0)
        mode = "r|gz" if self._archive.read(2) == b"\x1f\x8b" else "r|"
        self._archive.seek(0)
        number = 0
        with tarfile.open(fileobj=self._archive, mode=mode) as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []  # else it would remember them all
                number += 1
                if number > self._limits.max_entries:
                    raise self._too_many()
                if member.isdir():
                    continue
                if number > self._limits.skip:
                    self._entry(number, member.name, self._tar_blocks(archive, member))
                else:
                    self._count(member.size)

    def _tar_blocks(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
        if not member.isreg() or member.issparse():
            raise Refused("not_a_file", "It is a link or a device, not a file.")
        try:
            self._check_size(member.size)
        except Refused:
            self._count(member.size)  # to get behind it, it must be read
            raise
        file = archive.extractfile(member)
        assert file is not None
        while block := file.read(BLOCK_BYTES):
            yield block

    def _entry(self, number: int, name: str, blocks: Iterator[bytes]) -> None:
        self._send(Frame.ENTRY, msgspec.json.encode(Named(number=number, name=name.encode(errors="replace").decode())))
        ending = Ending()
        seen = 0
        try:
            for block in blocks:
                seen += len(block)
                self._check_size(seen)
                self._count(len(block))
                self._send(Frame.DATA, block)
        except Refused as refused:
            ending = refused.ending
            if self._total_bytes > self._limits.max_total_bytes:
                self._send(Frame.END, msgspec.json.encode(ending))
                raise
        except _DAMAGED as exc:
            if isinstance(exc, BrokenPipeError):
                raise
            ending = Ending(code="damaged_archive", message=f"It is damaged: {exc!s:.300}.")
        self._send(Frame.END, msgspec.json.encode(ending))

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_file_bytes:
            raise Refused("too_large", f"It is larger than {self._limits.max_file_bytes:,} bytes.")

    def _count(self, size_bytes: int) -> None:
        self._total_bytes += size_bytes
        if self._total_bytes > self._limits.max_total_bytes:
            raise Refused(
                "archive_too_large",
                f"The archive unpacks to more than {self._limits.max_total_bytes:,} bytes. Send it in parts.",
            )

    def _too_many(self) -> Refused:
        return Refused("too_many_entries", f"The archive holds more than {self._limits.max_entries:,} entries.")

    def _send(self, kind: Frame, body: bytes) -> None:
        self._out.write(FRAME.pack(len(body), kind))
        self._out.write(body)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the flag for UTF-8 are whatever the packing machine spoke: UTF-8 all the same, or Chinese."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeEncodeError:
        return info.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            name = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or all(
            char.isascii() or "\u3000" <= char <= "\u9fff" or char >= "\uff00" for char in name
        ):
            return name
    return info.filename


if __name__ == "__main__":
    main()
