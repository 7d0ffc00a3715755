"""A worker's own meters over HTTP: models, jobs and pipeline run in this process, and the api cannot see them."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from penstock.errors import ConfigError


@contextmanager
def serve_metrics(host: str, port: int, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Answers `GET /metrics` from a thread of its own until the end of the block; port 0: not at all.

    Raises ConfigError when the port is taken.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"The worker's metrics cannot be served on {host}:{port}: {error.strerror or error}. "
            f"Set worker.metrics_port to a free port, another one for each worker of a machine, or to 0."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
