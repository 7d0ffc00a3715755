"""Jobs: the queue's contract and engines, and the worker loop."""

from penstock.errors import ConfigError, MissingDependency
from penstock.jobs.base import JobStore
from penstock.jobs.options import JobsOptions, WorkerOptions

__all__ = ["JobStore", "JobsOptions", "WorkerOptions", "open_store"]


def open_store(url: str, options: JobsOptions | None = None) -> JobStore:
    """The store that a URL names, to be entered as an async context manager.

    `memory://` lives and dies with the process; `sqlite:///relative.db`, `sqlite:////absolute.db`;
    `redis://[[user]:password@]host[:port][/db][?prefix=name]`, `rediss://` with TLS. Raises ConfigError for any other.
    """
    scheme = url.partition("://")[0]
    if scheme in {"memory", "sqlite"}:
        from penstock.jobs.sqlite.store import SqliteStore  # noqa: PLC0415

        return SqliteStore(url, options)
    if scheme in {"redis", "rediss"}:
        try:
            from penstock.jobs.redis.store import RedisStore  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.partition(".")[0] != "redis":
                raise
            raise MissingDependency('jobs in Redis need its client: pip install "penstock[redis]"') from exc
        return RedisStore(url, options)
    raise ConfigError(f"no job store is known for {scheme!r}; use memory://, sqlite:///path or redis://host")
