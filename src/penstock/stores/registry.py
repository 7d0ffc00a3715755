"""Which class serves a URL: an engine that comes with Penstock, or one of the entry points `penstock.index_engines`."""

import importlib
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeAlias

from penstock.errors import ConfigError, MissingDependency
from penstock.stores.base import IndexStore
from penstock.stores.options import StoresOptions

GROUP = "penstock.index_engines"
"""Entry points of this group are named after the URL's scheme; each is called with the URL and `StoresOptions`."""

Maker: TypeAlias = Callable[[str, StoresOptions], IndexStore]

# Scheme → where its class is, and the extra that brings its packages.
ENGINES: Final = {
    "memory": ("penstock.stores.memory:MemoryIndex", ""),
    "lancedb": ("penstock.stores.lancedb:LanceIndex", ""),
    "qdrant+http": ("penstock.stores.qdrant:QdrantIndex", "qdrant"),
    "qdrant+https": ("penstock.stores.qdrant:QdrantIndex", "qdrant"),
    "qdrant+local": ("penstock.stores.qdrant:QdrantIndex", "qdrant"),
    "milvus+http": ("penstock.stores.milvus:MilvusIndex", "milvus"),
    "milvus+https": ("penstock.stores.milvus:MilvusIndex", "milvus"),
    "milvus+lite": ("penstock.stores.milvus:MilvusIndex", "milvus"),
    "chroma+http": ("penstock.stores.chroma:ChromaIndex", "chroma"),
    "chroma+https": ("penstock.stores.chroma:ChromaIndex", "chroma"),
    "chroma+local": ("penstock.stores.chroma:ChromaIndex", "chroma"),
    "pgvector": ("penstock.stores.pgvector:PgVectorIndex", "pgvector"),
}


def open_index(url: str, options: StoresOptions | None = None) -> IndexStore:
    """The store that a URL names, not opened yet: `lancedb:///folder`, `qdrant+http://host:6333`, `memory://` …

    The engine's package is imported here and not before. `ConfigError` for a URL that no engine understands,
    `MissingDependency` when the engine's package is not installed.
    """
    scheme, separator, place = url.partition("://")
    if not separator or (scheme not in {"memory", "qdrant+local"} and not place):
        raise ConfigError(f"No index engine for the URL {_shown(url)!r}; use one such as lancedb:///path/to/folder")
    return _maker(scheme, url)(url, options or StoresOptions())


def _maker(scheme: str, url: str) -> Maker:
    os.environ.setdefault("LANCE_LOG", "error")  # read once, at import; its warnings say nothing to a user
    if scheme in ENGINES:
        target, extra = ENGINES[scheme]
    elif found := _plugin(scheme):
        target, extra = found.value, ""
    else:
        known = ", ".join(f"{one}://" for one in sorted({*ENGINES, *entry_points(group=GROUP).names}))
        raise ConfigError(f"No index engine for the URL {_shown(url)!r}; there are {known}")
    module, _, name = target.partition(":")
    try:
        maker: Maker = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as exc:
        package = f"penstock[{extra}]" if extra else exc.name
        raise MissingDependency(f'The index {_shown(url)} needs a package: pip install "{package}"') from exc
    return maker


def _plugin(scheme: str) -> EntryPoint | None:
    return next(iter(entry_points(group=GROUP, name=scheme)), None)


def _shown(url: str) -> str:
    """The URL without user and password."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
