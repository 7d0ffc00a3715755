"""`penstock models`"""

from pathlib import Path

from penstock.cli.output import Json, exit_codes, print_json, print_table, size
from penstock.errors import PenstockError
from penstock.models.catalogue import ModelEntry, catalogue
from penstock.models.options import ModelsOptions
from penstock.models.weights import find_model
from penstock.settings import load_settings

COLUMNS = ("name", "kind", "model", "preloaded", "where", "weights")


def models(as_json: Json = False) -> None:
    """Show each model of the settings and where it comes from. Downloads nothing and loads nothing."""
    with exit_codes(as_json=as_json):
        options = load_settings().models
        found = [_row(entry, options) for entry in catalogue(options)]
        if as_json:
            print_json([dict(zip(COLUMNS, row, strict=True)) for row in found])
        else:
            print_table(list(COLUMNS), found)


def _row(entry: ModelEntry, options: ModelsOptions) -> list[str]:
    kind = f"{entry.kind} (default)" if entry.default else entry.kind
    row = [entry.name, kind, entry.model, "yes" if entry.preloaded else ""]
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
