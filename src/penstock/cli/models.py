"""`penstock models`"""

from pathlib import Path

from penstock.cli.output import Json, exit_codes, print_json, print_table, size
from penstock.errors import PenstockError
from penstock.models.options import ModelsOptions
from penstock.models.weights import find_model
from penstock.settings import load_settings


def models(as_json: Json = False) -> None:
    """Show where each model of the settings comes from. Downloads nothing and loads nothing."""
    with exit_codes(as_json=as_json):
        options = load_settings().models
        found = [_row(name, model, options) for name, model in known_models(options).items()]
        columns = ["name", "model", "preloaded", "where", "weights"]
        if as_json:
            print_json([dict(zip(columns, row, strict=True)) for row in found])
        else:
            print_table(columns, found)


def known_models(options: ModelsOptions) -> dict[str, str]:
    """Every name that a collection may use for its model, and what it stands for."""
    return {"default": options.embedding, **options.aliases}


def _row(name: str, model: str, options: ModelsOptions) -> list[str]:
    preloaded = "yes" if name in options.preload else ""
    try:
        folder = find_model(model, cache_dir=options.cache_dir, download=False)
    except PenstockError as exc:
        return [name, model, preloaded, exc.message, ""]
    return [name, model, preloaded, str(folder), size(sum(weights_bytes(folder)))]


def weights_bytes(folder: Path) -> list[int]:
    return [file.stat().st_size for file in folder.rglob("*") if file.suffix in {".safetensors", ".bin"}]
