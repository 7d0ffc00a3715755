"""`penstock serve`: one api process and one worker process, restarted whenever they die.

It loads no model and answers no request, so that there is nothing in it to crash.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Mapping

from penstock.app.restarts import Restarts
from penstock.app.role import Role
from penstock.errors import Conflict, PenstockError
from penstock.ids import new_id
from penstock.jobs import open_store
from penstock.settings import Settings

logger = logging.getLogger(__name__)

KILL_AFTER_S = 5.0
"""How much longer than the worker's own grace a stop may take."""


class StartError(PenstockError):
    """A child ended before it was ever ready; it has said why on stderr."""

    code = "start_failed"


class Supervisor:
    """Runs until SIGTERM or SIGINT. `environ` is what the children see: the settings of this process among it."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self._settings = settings
        self._environ = environ
        self._announce = announce
        self._stopping = asyncio.Event()
        self._forced = False
        self._roles: list[Role] = []

    async def run(self) -> bool:
        """True after an orderly stop, False after a forced one. Raises `Conflict` (port taken) and `StartError`."""
        with listen(self._settings.api.host, self._settings.api.port) as listener:
            self._handle_signals()
            worker_id = new_id("wrk")
            api = Role("api", ["--fd", str(listener.fileno())], self._environ, fds=[listener.fileno()])
            worker = Role("worker", ["--id", worker_id], self._environ)
            self._roles = [api, worker]
            ready = [asyncio.Event(), asyncio.Event()]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keep(api, ready[0]))
                    group.create_task(self._keep(worker, ready[1], worker_id))
                    group.create_task(self._say_ready(ready, listener))
                    if self._settings.worker.standby:
                        group.create_task(self._keep_standby(worker, ready))
            except* StartError as errors:
                raise errors.exceptions[0] from None
            finally:
                for role in self._roles:
                    role.kill()
        return not self._forced

    async def _say_ready(self, ready: list[asyncio.Event], listener: socket.socket) -> None:
        for event in ready:
            await event.wait()
        if not self._stopping.is_set():
            host, port = listener.getsockname()[:2]
            self._announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def _keep(self, role: Role, ready: asyncio.Event, worker_id: str | None = None) -> None:
        """Has a process fill the role again and again until we stop."""
        restarts = Restarts()
        while not self._stopping.is_set():
            how, ready_for_s = await self._one_life(role, ready)
            if self._stopping.is_set():
                break
            if not ready.is_set():
                raise StartError(f"The {role.name} process {how} before it was ready.")
            pause_s = restarts.pause_s(ready_for_s=ready_for_s)
            logger.error("The %s process %s; starting it again in %.1f s", role.name, how, pause_s)
            pause = asyncio.create_task(self._pause(pause_s))
            if worker_id is not None:
                await self._give_back(worker_id)
            await pause
        ready.set()

    async def _one_life(self, role: Role, ready: asyncio.Event) -> tuple[str, float]:
        """From the start of a process to its end: how it ended, and for how long it had been ready."""
        try:
            child = await role.fill()
        except OSError as exc:  # no memory, too many processes
            return f"could not be started ({exc.strerror})", 0.0
        ready_at = None
        if await child.ready():
            ready_at = time.monotonic()
            ready.set()
        status = await child.ended()
        child.kill()  # what it started and left behind
        return f"ended (status {status})", 0.0 if ready_at is None else time.monotonic() - ready_at

    async def _keep_standby(self, role: Role, ready: list[asyncio.Event]) -> None:
        """Starts one whenever there is none. The first once all is ready: no start of the server waits for it."""
        for event in ready:
            await event.wait()
        restarts = Restarts()
        while not self._stopping.is_set():
            try:
                status = await role.stand_by()
            except OSError as exc:  # no memory, too many processes
                how = f"could not be started ({exc.strerror})"
            else:
                if status is None:  # it works now
                    restarts = Restarts()
                    continue
                how = f"ended (status {status})"
            if not self._stopping.is_set():
                pause_s = restarts.pause_s(ready_for_s=0.0)  # ever longer: the system may want its memory
                logger.warning("The %s's standby %s; starting another one in %.1f s", role.name, how, pause_s)
                await self._pause(pause_s)

    async def _give_back(self, worker_id: str) -> None:
        """A worker that we saw die will not finish its jobs: the next one need not wait for its leases to expire."""
        try:
            async with open_store(self._settings.jobs_url, self._settings.queue) as jobs:
                await jobs.hand_back(worker_id, died=True)
        except PenstockError as exc:
            logger.warning("The dead worker's jobs could not be handed back; their leases will expire: %s", exc)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        """The first time in order, within a grace period; the second time at once."""
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        for role in self._roles:
            role.stop()
        asyncio.get_running_loop().call_later(self._settings.worker.grace_s + KILL_AFTER_S, self._kill)

    def _kill(self) -> None:
        self._forced = True
        for role in self._roles:
            role.kill()


def listen(host: str, port: int) -> socket.socket:
    """The listening socket that all api processes of this machine share. `Conflict` when the address is taken.

    The supervisor holds it, so that no connection is refused while the api process is restarted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as exc:
        listener.close()
        raise Conflict(
            f"Cannot listen on {host}:{port}: {exc.strerror}. Stop what listens there, or choose another --port."
        ) from exc
    listener.set_inheritable(True)
    return listener
