"""Which files `penstock ingest` takes, under which names, and how many go into one request."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from penstock.client import NewFile
from penstock.errors import InvalidInput

BATCH_FILES = 200
BATCH_BYTES = 8 * 1024 * 1024
"""One request holds so much: enough that the round trip does not count, so little that progress is seen."""


def find_files(paths: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[NewFile]:
    """The files at `paths`, folders with all that is in them, but for hidden files and links that lead out of them; in
    order of their names.

    A file in a folder is named by its way from that folder. The patterns are of that name or of its last part. Raises
    `InvalidInput` for a path that is not there and for two files that would be one document.
    """
    found: dict[str, Path] = {}
    for path in paths:
        for name, file in _files_at(path):
            if not _wanted(name, include, exclude):
                continue
            if found.setdefault(name, file).absolute() != file.absolute():
                raise InvalidInput(
                    f"{found[name]} and {file} would both become the document {name!r}. "
                    "Ingest them from a folder above both, or into two collections."
                )
    return [NewFile(name=name, content=file) for name, file in found.items()]


def batches(
    files: Sequence[NewFile], *, max_files: int = BATCH_FILES, max_bytes: int = BATCH_BYTES
) -> Iterator[Sequence[NewFile]]:
    """The files in requests' worth; one that is larger than a request should be goes alone."""
    batch: list[NewFile] = []
    total = 0
    for file in files:
        file_bytes = size_bytes(file)
        if batch and (len(batch) == max_files or total + file_bytes > max_bytes):
            yield batch
            batch, total = [], 0
        batch.append(file)
        total += file_bytes
    if batch:
        yield batch


def size_bytes(file: NewFile) -> int:
    """0 for a file that is gone or may not be looked at; the upload will tell."""
    try:
        return len(file.content) if isinstance(file.content, bytes) else file.content.stat().st_size
    except OSError:
        return 0


def _files_at(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                file = Path(folder, name)
                if not name.startswith(".") and file.is_file() and not _leads_out(file, path):
                    yield _speakable(file.relative_to(path).as_posix()), file
    elif path.is_file():
        yield _speakable(path.name), path
    else:
        what = "is no plain file" if path.exists() else "is not there"
        raise InvalidInput(f"{path} {what}. Give files, or folders of them.")


def _leads_out(file: Path, folder: Path) -> bool:
    """A link to a file elsewhere: whoever may write into the folder could have any file of the user's sent."""
    return file.is_symlink() and not file.resolve().is_relative_to(folder.resolve())


def _speakable(name: str) -> str:
    """A name that is no UTF-8 on disk with question marks where it cannot be said."""
    return os.fsencode(name).decode("utf-8", "replace")


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def fits(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)

    return (not include or any(map(fits, include))) and not any(map(fits, exclude))
