"""Bytes of unknown number on their way into a store, hashed as they come: a little in memory, more in a file."""

import contextlib
import errno
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from penstock.errors import StorageFull, TooLarge, Unavailable

MEMORY_BYTES = 1024 * 1024
BLOCK_BYTES = 256 * 1024
SUFFIX = ".part"
"""What names a file that is not a blob yet."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """The operating system's errors as ours."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise StorageFull(
                f"The blob store cannot grow: the disk is full ({exc}). Free some space.", retry_after_s=30
            ) from exc
        raise Unavailable(f"The blob store cannot be read or written ({exc}): check its folder and disk.") from exc


class Spool:
    """Take with `add`; whenever that says so, `flush` before the next (it blocks). In the end `finish` (it blocks too).

    The file is made in `folder`; `discard` leaves nothing of it.
    """

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self._path = folder / f"{secrets.token_hex(16)}{SUFFIX}"
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self._tail = bytearray()
        self._file_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._file_bytes + len(self._tail)

    def add(self, block: bytes) -> bool:
        """`TooLarge` beyond the limit. True: flush, there is much in memory."""
        if self._limit_bytes is not None and self.size_bytes + len(block) > self._limit_bytes:
            raise TooLarge(f"This is more than the limit of {self._limit_bytes} bytes: send less, or raise the limit.")
        self._tail += block
        return len(self._tail) >= (BLOCK_BYTES if self._file_bytes else MEMORY_BYTES)

    def flush(self) -> None:
        """Hashes what is in memory and moves it to the file."""
        self._hash.update(self._tail)
        with storage_errors(), self._path.open("ab") as file:
            file.write(self._tail)
        self._file_bytes += len(self._tail)
        self._tail.clear()

    def finish(self) -> tuple[str, bytes | Path]:
        """The SHA-256, and where all the bytes are: in memory, or in a file."""
        if self._file_bytes:
            self.flush()
            return self._hash.hexdigest(), self._path
        self._hash.update(self._tail)
        return self._hash.hexdigest(), bytes(self._tail)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
