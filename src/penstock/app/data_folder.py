"""The folder of a one-machine set-up: made when missing, refused when it cannot be used, owned by one `serve`."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.errors import Conflict, DataError

LOCK_NAME = "serve.lock"


def prepare_folder(folder: Path) -> None:
    """Makes the folder (readable by its owner alone) and proves that it can be written. `DataError` when not."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise DataError(
            f"The data folder {folder.absolute()} cannot be written: {exc.strerror}. "
            "Correct its owner or mode, free some space, or choose another with --data-dir."
        ) from exc


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Holds the folder for one `penstock serve`. `Conflict` when another one has it; the lock dies with its process."""
    prepare_folder(folder)
    with (folder / LOCK_NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise Conflict(
                f"Another `penstock serve` (process {owner}) uses the data folder {folder.absolute()}. "
                "Stop it, or choose another folder with --data-dir."
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
