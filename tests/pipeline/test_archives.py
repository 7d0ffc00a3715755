"""Archives, good and hostile: what is good in them comes out, the rest is refused with a reason, nothing escapes."""

import io
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable

import pytest

from penstock.errors import InvalidInput
from penstock.pipeline.archives.unpack import ArchiveOptions, unpack
from penstock.pipeline.names import entry_name, is_hidden

MIB = 1024 * 1024


async def unpacked(data: bytes, *, skip: int = 0, **options: float) -> dict[str, bytes | str]:
    """Bytes by name, or the code of the refusal; that of the archive as a whole under `*`."""
    found: dict[str, bytes | str] = {}
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        try:
            async for entry in unpack(file, ArchiveOptions.model_validate(options), skip=skip):
                try:
                    found[entry.name] = b"".join([block async for block in entry.blocks])
                except InvalidInput as exc:
                    found[entry.name] = exc.code
        except InvalidInput as exc:
            found["*"] = exc.code
    return found


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = {"a.txt": b"one", "b/c.txt": b"two", "b/large.txt": os.urandom(3 * MIB), "文档.txt": b"three", "empty.txt": b""}


@pytest.mark.parametrize("make", [zipped, tarred, lambda files: tarred(files, "w")], ids=["zip", "tar.gz", "tar"])
async def test_what_was_packed_comes_out(make: Callable[[dict[str, bytes]], bytes]) -> None:
    data = make(FILES)
    assert await unpacked(data) == FILES
    rest = await unpacked(data, skip=2)
    assert rest == {name: FILES[name] for name in ("b/large.txt", "文档.txt", "empty.txt")}, "and goes on anywhere"


async def test_names_of_chinese_machines_are_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("12345678.txt", b"x")
    data = out.getvalue().replace(b"12345678.txt", "城市巡查.txt".encode("gbk"))
    assert await unpacked(data) == {"城市巡查.txt": b"x"}


@pytest.mark.case(29)
@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "\\x", "..\\x", "C:\\x", "a/..", "a\0b", "x" * 5000, "a\u202efdp.exe"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        entry_name(name)


def test_what_systems_leave_behind_is_hidden() -> None:
    assert all(map(is_hidden, [".DS_Store", "a/.git/config", "__MACOSX/a.txt"]))
    assert not any(map(is_hidden, ["a.txt", "./a.txt", "a/b.c"]))


@pytest.mark.case(29)
async def test_links_and_devices_are_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("sym", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("dev", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert await unpacked(out.getvalue()) == dict.fromkeys(("sym", "hard", "dev"), "not_a_file")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zip_archive:
        link = zipfile.ZipInfo("sym")
        link.external_attr = 0o120777 << 16
        zip_archive.writestr(link, "/etc/passwd")
    assert await unpacked(out.getvalue()) == {"sym": "not_a_file"}


@pytest.mark.case(30)
async def test_a_bomb_ends_where_the_limit_is() -> None:
    bomb = zipped({"good.txt": b"good", "zeros": bytes(64 * MIB), "more.txt": b"more"})
    assert await unpacked(bomb, max_file_bytes=MIB) == {"good.txt": b"good", "zeros": "too_large", "more.txt": b"more"}
    many = zipped({f"{n}": bytes(MIB) for n in range(8)})
    found = await unpacked(many, max_unpacked_bytes=3 * MIB + 10)
    assert list(found.values()).count(bytes(MIB)) == 3
    assert found["*"] == "archive_too_large"
    assert len(found) == 5
    hidden_behind = tarred({"zeros": bytes(64 * MIB), "more.txt": b"more"})
    found = await unpacked(hidden_behind, max_file_bytes=MIB, max_unpacked_bytes=32 * MIB)
    assert found == {"zeros": "archive_too_large", "*": "archive_too_large"}


@pytest.mark.case(30)
async def test_sizes_that_lie_are_counted() -> None:
    data = bytearray(zipped({"lies": bytes(8 * MIB)}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + at, 10)
    found = await unpacked(bytes(data), max_file_bytes=MIB)
    assert found["lies"] in {"damaged_archive", "too_large"}


@pytest.mark.case(30)
async def test_a_million_entries_are_refused_before_they_are_read() -> None:
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    directory = entry * 1_000_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)
    assert await unpacked(b"PK\x03\x04" + directory + end) == {"*": "too_many_entries"}
    assert (await unpacked(tarred({f"{n}": b"" for n in range(50)}), max_entries=20))["*"] == "too_many_entries"


@pytest.mark.case(30)
async def test_a_header_as_large_as_memory_ends_the_process_and_not_us() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4 * 1024 * MIB
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(info.tobuf(tarfile.GNU_FORMAT))
    zeros = bytes(16 * MIB)
    body = b"".join(packer.compress(zeros) for _ in range(20))
    found = await unpacked(head + body + packer.flush(), memory_limit_mb=128)
    assert found["*"] in {"memory_limit", "damaged_archive"}


@pytest.mark.case(30)
@pytest.mark.parametrize("cut", [3, 30, 200, 1000])
async def test_a_damaged_archive_gives_what_is_whole_in_it(cut: int) -> None:
    for make in (zipped, tarred):
        data = make({"a.txt": b"one", "b.txt": os.urandom(5000)})
        found = await unpacked(data[:-cut])
        assert "*" in found or "damaged_archive" in found.values() or found["b.txt"] != "", found
        assert found.get("a.txt", b"one") == b"one"


async def test_encrypted_entries_and_broken_sums_are_told() -> None:
    data = bytearray(zipped({"a.txt": b"aaaa", "b.txt": b"bbbb"}, zipfile.ZIP_STORED))
    data[data.index(b"aaaa")] = ord("x")
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature, data.index(signature) + 1)
        struct.pack_into("<H", data, start + at, 1)
    assert await unpacked(bytes(data)) == {"a.txt": "damaged_archive", "b.txt": "encrypted"}


async def test_what_is_no_archive_is_refused() -> None:
    for data in (b"", b"no archive at all" * 100, b"PK\x03\x04", b"\x1f\x8b" + bytes(100)):
        assert list(await unpacked(data)) in (["*"], []), data
