"""`penstock models`"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from penstock.cli.output import Json, Url, exit_codes, print_json, print_table, size
from penstock.client import Client, ClientOptions
from penstock.errors import PenstockError
from penstock.models.catalogue import ModelEntry, catalogue
from penstock.models.options import ModelsOptions
from penstock.models.weights import find_model
from penstock.settings import load_settings
from penstock.types import WorkerInfo

COLUMNS = ("name", "kind", "model", "dimensions", "device", "memory", "loaded", "preloaded", "where", "weights")


def models(url: Url = "", as_json: Json = False) -> None:
    """Show each model of the settings and where it comes from, and what a running server has loaded of them.

    Downloads nothing and loads nothing.
    """
    with exit_codes(as_json=as_json):
        settings = load_settings()
        workers = _workers(url)
        entries = catalogue(settings.models, settings.generator, settings.vision)
        found = [_row(entry, settings.models, workers) for entry in entries]
        if as_json:
            print_json([dict(zip(COLUMNS, row, strict=True)) for row in found])
        else:
            print_table(list(COLUMNS), found)


def _workers(url: str) -> Sequence[WorkerInfo]:
    """Those of the server, if one is running."""
    with suppress(PenstockError), Client(options=ClientOptions(url=url, attempts=1, refused_attempts=1)) as client:
        return client.workers()
    return ()


def _row(entry: ModelEntry, options: ModelsOptions, workers: Sequence[WorkerInfo]) -> list[str]:
    held = entry.held_by(workers)
    dimensions = held.dimensions if held else entry.dimensions
    row = [
        entry.name,
        f"{entry.kind} (default)" if entry.default else entry.kind,
        entry.model,
        str(dimensions or ""),
        (held.device if held else "") or ("" if entry.local else "remote"),
        size(held.memory_bytes) if held and held.memory_bytes else "",
        "yes" if held else "",
        "yes" if entry.preloaded else "",
    ]
    if not entry.local:
        return [*row, "remote", ""]
    try:
        folder = find_model(entry.model, cache_dir=options.cache_dir, download=False)
    except PenstockError as exc:
        return [*row, exc.message, ""]
    return [*row, str(folder), size(sum(weights_bytes(folder)))]


def weights_bytes(folder: Path) -> list[int]:
    """Sizes of the files that hold weights."""
    return [file.stat().st_size for file in folder.rglob("*") if file.suffix in {".safetensors", ".bin", ".onnx"}]
