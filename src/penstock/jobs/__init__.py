"""Jobs: the queue's contract and engines, and the worker loop."""

from penstock.errors import ConfigError
from penstock.jobs.base import JobStore
from penstock.jobs.options import JobsOptions, WorkerOptions

__all__ = ["JobStore", "JobsOptions", "WorkerOptions", "open_store"]


def open_store(url: str, options: JobsOptions | None = None) -> JobStore:
    """The store that a URL names, to be entered as an async context manager.

    `memory://` lives and dies with the process; `sqlite:///relative.db`, `sqlite:////absolute.db`.
    Raises ConfigError for any other.
    """
    scheme = url.partition("://")[0]
    if scheme in {"memory", "sqlite"}:
        from penstock.jobs.sqlite.store import SqliteStore  # noqa: PLC0415

        return SqliteStore(url, options)
    raise ConfigError(f"no job store is known for {scheme!r}; use memory:// or sqlite:///path")
