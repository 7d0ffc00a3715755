"""Compiled networks kept on disk, so that the next start need not compile.

The engine's own cache is not used: it names its files by counters that change from one build of a graph to the next,
and it writes them in place, so that a crash leaves half a file.
"""

import hashlib
import logging
import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

import penstock

logger = logging.getLogger(__name__)


def compile_network(
    core: Any, build: Callable[[], Any], settings: Mapping[str, Any], *, weights: Path, told: str, folder: Path
) -> tuple[Any, Any]:
    """The compiled network, from `folder` or compiled now and kept there; and what must live as long as it does.

    It is found again for the same `weights` file, settings and `told`, which tells all else that the graph depends on.
    A cache that cannot be read or written costs time only. Raises RuntimeError for a graph that does not compile.
    """
    file = folder / f"{name_of(weights, settings)}-{version_of(weights, told)}.blob"
    if file.is_file():
        try:
            return load(core, file, settings)
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("the compiled model %s cannot be used and is made anew: %s", file, error)
    compiled = core.compile_model(build(), "CPU", settings)
    try:
        keep(compiled, file)
    except OSError as error:
        logger.debug("the compiled model is not kept in %s: %s", folder, error)
    return compiled, None


def name_of(weights: Path, settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{weights.resolve()}|{sorted(settings.items())}".encode()).hexdigest()[:16]


def version_of(weights: Path, told: str) -> str:
    """Another version of the weights or of the programs that made the graph must not find it."""
    status = weights.stat()
    made = f"{status.st_size}|{status.st_mtime_ns}|{told}|{ov.__version__}|{penstock.__version__}"
    return hashlib.sha256(made.encode()).hexdigest()[:16]


def load(core: Any, file: Path, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    # Copy-on-write, because the engine asks for writable memory; it never writes.
    blob = np.memmap(file, np.uint8, mode="c")
    compiled = core.import_model(ov.Tensor(blob, shared_memory=True), "CPU", settings)
    if hasattr(mmap, "MADV_DONTNEED"):
        blob._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
    return compiled, blob


def keep(compiled: Any, file: Path) -> None:
    """Write the whole file or none, and remove older versions of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        with fresh.open("wb") as stream:
            stream.write(compiled.export_model().getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)
    for old in file.parent.glob(f"{file.name.split('-', 1)[0]}-*.blob"):
        if old != file:
            old.unlink(missing_ok=True)
