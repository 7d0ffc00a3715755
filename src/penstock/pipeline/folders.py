"""Folders of the server that batches may name: beneath an allowed one, whatever links lie on the way."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from penstock.errors import Forbidden, InvalidInput

_NOT_ALLOWED = (
    "This server takes no documents from that folder. Its operator names the folders in `api.allowed_folders`."
)


def allowed_folder(path: str, allowed: Sequence[Path]) -> Path:
    """The folder itself, links resolved. `Forbidden`, in the same words, for one outside of the allowed ones and one
    that is not there."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidInput("The folder is given by its whole path on the server.")
    try:
        folder = Path(path).resolve(strict=True)
        roots = [root.resolve() for root in allowed]
    except (OSError, RuntimeError) as exc:  # a loop of links is a RuntimeError
        raise Forbidden(_NOT_ALLOWED) from exc
    if not any(folder.is_relative_to(root) for root in roots) or not folder.is_dir():
        raise Forbidden(_NOT_ALLOWED)
    return folder


def wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a path within the folder, or its last part, is like one of `include` (if any) and none of `exclude`."""

    def fits(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)

    return (not include or any(map(fits, include))) and not any(map(fits, exclude))


def files_beneath(folder: Path, after: str = "") -> Iterator[str]:
    """Paths of the files in a folder and all below it, in a fixed order, from behind `after`; hidden ones are left out.

    Links are among them, and are refused when they are opened (`open_beneath`)."""
    behind = tuple(after.split("/")) if after else ()
    yield from _files(folder, (), behind)


def _files(folder: Path, at: tuple[str, ...], behind: tuple[str, ...]) -> Iterator[str]:
    """Names in order of code points, a folder's files where its name stands."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError:  # gone meanwhile, or not ours to read
        return
    first = behind[0] if behind else ""
    for name, is_folder in found:
        if name.startswith(".") or name < first:
            continue
        if is_folder:
            yield from _files(folder / name, (*at, name), behind[1:] if name == first else ())
        elif name != first or len(behind) > 1:
            yield "/".join((*at, name))


def open_beneath(folder: Path, name: str) -> IO[bytes]:
    """A file below the folder, opened step by step, so that no link leads out of it, however it is swapped meanwhile.

    `InvalidInput` (`not_a_file`, `unreadable`) for anything but a plain file."""
    *folders, last = name.split("/")
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for part in folders:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
                os.close(at)
                at = deeper
            descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
        finally:
            os.close(at)
    except OSError as exc:
        if exc.errno == errno.ELOOP:  # a link, where none is followed
            raise InvalidInput("It is a link, not a file.", code="not_a_file") from exc
        raise InvalidInput(f"It cannot be read: {exc.strerror}.", code="unreadable") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput("It is not a plain file.", code="not_a_file")
    return os.fdopen(descriptor, "rb")
