"""A process that the supervisor runs: started, watched for its readiness and its end, stopped."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence

READY_LINE = b"ready\n"
"""What a supervised process writes to its stdout once it can do its work."""
GO_LINE = b"go\n"
"""What a standby reads from its stdin once it is its turn to work."""
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
        self._command = [sys.executable, "-m", "penstock", role, "--supervised", *arguments]
        self._environ = environ
        self._fds = fds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**MALLOC, **self._environ},
            pass_fds=self._fds,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor alone, which stops us in order
        )

    def go(self) -> None:
        """Tells a standby that it is its turn. One that is dead does not hear it, and `ready` and `ended` tell."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(GO_LINE)

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
