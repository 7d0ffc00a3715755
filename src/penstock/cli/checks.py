"""What `penstock doctor` looks at, one function each."""

import asyncio
import importlib.util
import os
import platform
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from penstock.blobs import open_blobs
from penstock.client import Client, ClientOptions
from penstock.errors import PenstockError
from penstock.jobs import open_store
from penstock.ledger import open_ledger
from penstock.models.catalogue import catalogue
from penstock.models.weights import find_model
from penstock.settings import Settings, config_file, unknown_variables
from penstock.stores import open_index

GIB = 1024**3
LITTLE_DISK_BYTES = 2 * GIB
NO_DISK_BYTES = GIB // 5
LITTLE_MEMORY_BYTES = 2 * GIB
FEW_FILES = 1024
PROBE_S = 2.0


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to do about it (empty when it is fine)."""

    name: str
    level: Level
    found: str
    advice: str = ""


def run_checks(settings: Settings) -> Iterator[Check]:
    yield python()
    yield processor()
    yield memory()
    yield open_files()
    yield variables()
    yield folder(settings)
    yield disk(settings)
    yield from weights(settings)
    yield from stores(settings)
    yield server(settings)
    yield generator(settings)
    yield from optional()


def python() -> Check:
    return Check(name="python", level=Level.OK, found=f"{platform.python_version()} on {platform.machine()}")


def processor(info: Path = Path("/proc/cpuinfo")) -> Check:
    cores = f"{os.cpu_count()} cores"
    try:
        text = info.read_text()
    except OSError:
        return Check(name="processor", level=Level.OK, found=cores)
    flags = set(text.split())
    fast = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd", "bf16") if name in flags]
    if not fast:
        advice = "Embedding will be slow: there is no AVX2. On a virtual machine, pass the host's processor through."
        return Check(name="processor", level=Level.WARN, found=cores, advice=advice)
    return Check(name="processor", level=Level.OK, found=f"{cores}, {' '.join(fast)}")


def memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{total / GIB:.1f} GiB"
    if total < LITTLE_MEMORY_BYTES:
        return Check(name="memory", level=Level.WARN, found=found, advice="Give it 2 GiB or more.")
    return Check(name="memory", level=Level.OK, found=found)


def open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILES:
        advice = f"Many users at once will not fit: `ulimit -n {4 * FEW_FILES}` before the start."
        return Check(name="open files", level=Level.WARN, found=str(soft), advice=advice)
    return Check(name="open files", level=Level.OK, found=str(soft))


def variables() -> Check:
    file = f"{config_file()}{'' if config_file().is_file() else ' (not there)'}"
    if unknown := unknown_variables():
        advice = f"Nothing reads {', '.join(unknown)}. See `penstock config show`."
        return Check(name="settings", level=Level.WARN, found=file, advice=advice)
    return Check(name="settings", level=Level.OK, found=file)


def folder(settings: Settings) -> Check:
    """Writes a file without a name into it, or, while it is not there, into the nearest folder above."""
    path = settings.data_dir.absolute()
    place = existing(path)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as exc:
        advice = f"{place} cannot be written ({exc.strerror}). Correct its owner or mode, or choose another --data-dir."
        return Check(name="data folder", level=Level.FAIL, found=str(path), advice=advice)
    return Check(name="data folder", level=Level.OK, found=f"{path}{'' if path.exists() else ' (made at first start)'}")


def existing(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def disk(settings: Settings) -> Check:
    free = shutil.disk_usage(existing(settings.data_dir.absolute())).free
    found = f"{free / GIB:.1f} GiB free"
    if free < LITTLE_DISK_BYTES:
        level = Level.FAIL if free < NO_DISK_BYTES else Level.WARN
        return Check(name="disk", level=level, found=found, advice="Free some space, or choose another --data-dir.")
    return Check(name="disk", level=Level.OK, found=found)


def weights(settings: Settings) -> Iterator[Check]:
    options = settings.models
    entries = [entry for entry in catalogue(options) if entry.preloaded and entry.local]
    for model in dict.fromkeys(entry.model for entry in entries):
        try:
            place = find_model(model, cache_dir=options.cache_dir, download=False)
        except PenstockError as exc:
            level = Level.WARN if options.download else Level.FAIL
            advice = "The first start will try to download it. " if options.download else ""
            yield Check(name="weights", level=level, found=f"{model}: not here", advice=advice + exc.message)
        else:
            yield Check(name="weights", level=Level.OK, found=f"{model} in {place}")


def stores(settings: Settings) -> Iterator[Check]:
    """Opens each store as a server would; in a data folder that is not there yet there is nothing to open."""
    opens: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "ledger": lambda: open_ledger(settings.ledger_url),
        "jobs": lambda: open_store(settings.jobs_url, settings.queue),
        "index": lambda: open_index(settings.index_url, settings.stores),
        "blobs": lambda: open_blobs(settings.blobs_url),
    }
    for name, opener in opens.items():
        if not settings.data_dir.exists() and not getattr(settings, name).get_secret_value():
            yield Check(name=name, level=Level.OK, found="made at first start")
            continue
        try:
            asyncio.run(_ping(opener))
        except PenstockError as exc:
            yield Check(name=name, level=Level.FAIL, found="cannot be opened", advice=exc.message)
        else:
            yield Check(name=name, level=Level.OK, found="opens and answers")


async def _ping(opener: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
    async with opener() as store:
        await store.ping()


def server(settings: Settings) -> Check:
    """Whether the port is free, or a Penstock server has it and is ready."""
    host, port = settings.api.host, settings.api.port
    where = f"{host}:{port}"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(PROBE_S)
        if probe.connect_ex((host, port)):
            return Check(name="server", level=Level.OK, found=f"not running; {where} is free")
    try:
        with Client(
            options=ClientOptions(url=f"http://{where}", attempts=1, timeout_s=PROBE_S, connect_timeout_s=PROBE_S)
        ) as client:
            readiness = client.ready()
    except PenstockError:
        advice = "Something else listens there. Stop it, or choose another port: `penstock serve --port …`."
        return Check(name="server", level=Level.FAIL, found=f"{where} is taken", advice=advice)
    wrong = [f"{part}: {state}" for part, state in readiness.checks.items() if state != "ok"]
    if wrong:
        return Check(name="server", level=Level.WARN, found=f"running on {where}", advice="; ".join(wrong))
    return Check(name="server", level=Level.OK, found=f"running and ready on {where}")


def generator(settings: Settings) -> Check:
    options = settings.generator
    found = f"{options.model} at {options.base_url}" if options.configured else "none: answers quote the documents"
    return Check(name="language model", level=Level.OK, found=found)


def optional() -> Iterator[Check]:
    redis = importlib.util.find_spec("redis") is not None
    yield Check(name="redis client", level=Level.OK, found="installed" if redis else 'not installed: "penstock[redis]"')
