"""The api process: uvicorn on a socket that is given or made here, stopped in order."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from penstock.api.auth import is_loopback
from penstock.api.main import create_app
from penstock.api.protocol import PatientProtocol
from penstock.app import Services, open_services
from penstock.app.lifeline import StopSignal
from penstock.app.supervisor import listen
from penstock.errors import ConfigError
from penstock.settings import Settings

STREAMS_END_WITHIN_S = 5
"""How long a stop waits for open responses (event streams among them) before it closes them."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, since a process of ours can also be stopped by its supervisor's end."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say_started()


async def run_api(settings: Settings, *, fd: int | None, stop: StopSignal, started: Callable[[], None]) -> None:
    """Serves until `stop`. `fd` is a listening socket; without it one is made from the settings.

    Raises what `open_services` and `listen` raise, and `ConfigError` for an open door without a lock.
    """
    await stop.install()
    listener = socket.socket(fileno=fd) if fd is not None else listen(settings.api.host, settings.api.port)
    async with open_services(settings) as services:
        await refuse_open_door(services)
        config = uvicorn.Config(
            create_app(services),
            http=PatientProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=2048,
            limit_concurrency=settings.api.max_connections,
            loop="none",
            timeout_graceful_shutdown=STREAMS_END_WITHIN_S,
            root_path=settings.api.root_path,
        )
        server = _Server(config, started)
        async with asyncio.TaskGroup() as group:
            stopper = group.create_task(_stop_when(stop, server))
            await server.serve(sockets=[listener])
            stopper.cancel()


async def _stop_when(stop: StopSignal, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


async def refuse_open_door(services: Services) -> None:
    """`ConfigError` when the server would be reachable from other machines and no API key exists."""
    host = services.settings.api.host
    if not is_loopback(host) and not await services.ledger.list_api_keys(None):
        raise ConfigError(
            f"Refusing to listen on {host}: no API key exists, so everyone who can reach this machine could read and "
            "delete all documents. Make a key first (`penstock keys create NAME`), or listen on 127.0.0.1."
        )
