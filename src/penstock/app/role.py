"""A role of the server, which one process fills, and the standby that takes over when that dies."""

import asyncio
from collections.abc import Mapping, Sequence

from penstock.app.child import Child


class Role:
    """`penstock api` or `penstock worker`, by whichever process of it works now.

    A standby is another process of the role that has done its imports and waits for its turn: it has loaded no model
    and opened nothing. It is always the younger of the two.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._environ = environ
        self._fds = fds
        self._working: Child | None = None
        self._standby: Child | None = None
        self._taken = asyncio.Event()
        self._stopped = False

    async def fill(self) -> Child:
        """Starts the process that works from now on: the standby, or a fresh one where none lives."""
        child, self._standby = self._standby, None
        self._taken.set()
        if child is not None and child.alive:
            child.go()
        else:
            child = self._child()
            await child.start()
        self._working = child
        if self._stopped:  # while it was being started
            child.stop()
        return child

    async def stand_by(self) -> int | None:
        """Starts a standby. Returns None once it is its turn, its exit status when it ended before."""
        standby = self._child("--standby")
        await standby.start()
        self._standby = standby
        self._taken.clear()
        if self._stopped:
            standby.kill()
        ended, taken = asyncio.create_task(standby.ended()), asyncio.create_task(self._taken.wait())
        try:
            await asyncio.wait({ended, taken}, return_when=asyncio.FIRST_COMPLETED)
            return None if taken.done() else ended.result()
        finally:
            ended.cancel()
            taken.cancel()

    def stop(self) -> None:
        """Asks the process that works to finish what it does; nothing is lost with the standby."""
        self._stopped = True
        if self._working is not None:
            self._working.stop()
        if self._standby is not None:
            self._standby.kill()

    def kill(self) -> None:
        for child in (self._working, self._standby):
            if child is not None:
                child.kill()

    def _child(self, *more: str) -> Child:
        return Child(self.name, [*self._arguments, *more], self._environ, self._fds)
