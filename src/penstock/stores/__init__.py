"""The index: one contract, one file per engine. `open_index` picks the engine by the URL's scheme."""

import os

from penstock.errors import ConfigError, MissingDependency
from penstock.stores.base import Candidate, IndexQuery, IndexRow, IndexStore, LaneHits
from penstock.stores.options import StoresOptions

__all__ = ["Candidate", "IndexQuery", "IndexRow", "IndexStore", "LaneHits", "StoresOptions", "open_index"]


def open_index(url: str, options: StoresOptions | None = None) -> IndexStore:
    """The store that a URL names, not opened yet: `memory://` or `lancedb:///folder`.

    The engine's package is imported here and not before. `ConfigError` for a URL that no engine understands,
    `MissingDependency` when the engine's package is not installed.
    """
    scheme, separator, place = url.partition("://")
    options = options or StoresOptions()
    if scheme == "memory" and separator:
        from penstock.stores.memory import MemoryIndex  # noqa: PLC0415

        return MemoryIndex()
    if scheme == "lancedb" and place:
        os.environ.setdefault("LANCE_LOG", "error")  # read once, at import; its warnings say nothing to a user
        try:
            from penstock.stores.lancedb import LanceIndex  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            raise MissingDependency(f'The index {url} needs a package: pip install "{exc.name}"') from exc
        return LanceIndex(place, options)
    raise ConfigError(f"No index engine for the URL {url!r}; use memory:// or lancedb:///path/to/folder")
