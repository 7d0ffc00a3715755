"""A process that the supervisor runs: started, watched for its readiness and its end, stopped, started again."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

READY_LINE = b"ready\n"
"""What a supervised process writes to its stdout once it can do its work."""

MALLOC = {"MALLOC_ARENA_MAX": "2"}
"""glibc keeps what threads gave back in up to eight arenas a core, and a worker has dozens of threads."""


class Child:
    """One role (`penstock api`, `penstock worker`) in a process of its own.

    Its stdin is a lifeline: it closes when we die, however we die, and the child stops then. Its stdout says when it is
    ready. Its stderr is ours.
    """

    def __init__(
        self, role: str, arguments: Sequence[str], environ: Mapping[str, str], fds: Sequence[int] = ()
    ) -> None:
        self.role = role
        self._command = [sys.executable, "-m", "penstock", role, "--supervised", *arguments]
        self._environ = environ
        self._fds = fds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**MALLOC, **self._environ},
            pass_fds=self._fds,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone, which stops us in order
        )

    async def ready(self) -> bool:
        """True once it says so; False when it ended before."""
        assert self._process is not None
        assert self._process.stdout is not None
        return await self._process.stdout.readline() == READY_LINE

    async def ended(self) -> int:
        """Waits for its end; returns its exit status (negative: the signal that killed it)."""
        assert self._process is not None
        return await self._process.wait()

    def stop(self) -> None:
        """Asks it to finish what it does and exit."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends it and everything that it started, also what it left behind."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
