"""What could be computed again: parse results, vectors, answers."""

import time
from pathlib import Path

from penstock.cache.base import Cache
from penstock.cache.disk import DiskCache
from penstock.cache.memory import MemoryCache
from penstock.cache.off import NoCache
from penstock.cache.options import CacheOptions
from penstock.errors import ConfigError

__all__ = ["Cache", "CacheOptions", "open_cache"]


def open_cache(url: str, options: CacheOptions | None = None) -> Cache:
    """The cache at `memory://` or `sqlite:///path/of/file`, or none (`off`), to be entered as an async context manager.

    `ConfigError` for any other URL.
    """
    options = options or CacheOptions()
    scheme, _, rest = url.partition("://")
    if url == "off":
        return NoCache()
    if scheme == "memory" and not rest:
        return MemoryCache(options.max_bytes, time.monotonic)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return DiskCache(Path(rest[1:]), options.max_bytes, time.time)
    raise ConfigError(f"{url!r} is not a cache: use sqlite:///path/of/file, memory:// or off.")
