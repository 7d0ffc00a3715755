"""How a process of ours hears that it should stop: a signal, or the end of the supervisor that started it."""

import asyncio
import signal
import sys

from penstock.app.child import GO_LINE, READY_LINE


class StopSignal:
    """`wait` returns at the first SIGTERM or SIGINT; when supervised also once our stdin closes."""

    def __init__(self, *, supervised: bool) -> None:
        self._event = asyncio.Event()
        self._supervised = supervised

    async def install(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._event.set)
        if self._supervised:
            await loop.connect_read_pipe(lambda: _Lifeline(self._event), sys.stdin)

    async def wait(self) -> None:
        await self._event.wait()

    def set(self) -> None:
        self._event.set()


class _Lifeline(asyncio.Protocol):
    """The read end of a pipe that closes when the supervisor dies."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._stop.set()


def say_ready(*, supervised: bool) -> None:
    """Tells the supervisor that this process can do its work."""
    if supervised:
        sys.stdout.buffer.write(READY_LINE)
        sys.stdout.buffer.flush()


def wait_for_turn() -> bool:
    """Blocks a standby until its supervisor says that it is its turn. False when that has died instead."""
    return sys.stdin.buffer.readline() == GO_LINE
