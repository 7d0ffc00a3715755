"""What a handler sees of its job, and what the worker keeps of an attempt in flight."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from penstock.jobs.records import NewEvent, Outcome
from penstock.types import JSON, Job, Priority, Progress

if TYPE_CHECKING:
    from penstock.jobs.reporter import Reporter


class Reason(Enum):
    """Why the worker cancelled a handler's task."""

    CANCEL_REQUESTED = auto()
    LEASE_LOST = auto()
    STOPPING = auto()


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt in flight. `ended`: its outcome is known (though maybe not written yet)."""

    job: Job
    begun: float
    task: asyncio.Task[Outcome] | None = None
    reason: Reason | None = None
    ended: bool = False
    events: list[NewEvent] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    progress: Progress | None = None
    progress_at: float = 0.0
    stage: str = ""

    @property
    def background(self) -> bool:
        return self.job.priority is not Priority.INTERACTIVE

    def seal(self) -> None:
        """Make what was said one event."""
        if self.said:
            self.events.append(NewEvent(type="delta", data={"text": "".join(self.said)}))
            self.said.clear()

    def cancel(self, reason: Reason) -> None:
        """Cancel the handler's task, once; the first reason counts."""
        if self.reason is None and not self.ended:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()


class JobContext:
    """Given to a handler. A handler may run more than once for a job: its effects must bear that.

    When the task is cancelled (cancel asked for, lease lost, worker stopping) the handler should unwind quickly.
    """

    def __init__(self, attempt: Attempt, reporter: "Reporter") -> None:
        self._attempt = attempt
        self._reporter = reporter

    @property
    def job(self) -> Job:
        return self._attempt.job

    @property
    def attempt(self) -> int:
        return self._attempt.job.attempt

    @property
    def cancelled(self) -> bool:
        """Whether whatever the handler still does is in vain."""
        return self._attempt.reason is not None

    async def progress(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Say how far the job is. Cheap: only the newest of a quarter of a second is written."""
        self._reporter.progress(self._attempt, Progress(stage=stage, done=done, total=total))

    async def emit(self, kind: str, data: Mapping[str, JSON]) -> None:
        """Add an event to the job's log; waits while too much is unwritten. Raises InvalidInput, TooLarge."""
        await self._reporter.emit(self._attempt, NewEvent(type=kind, data=data))

    async def say(self, text: str) -> None:
        """Add text to the job's log, as events of type `delta`: what comes faster than it is written goes together."""
        await self._reporter.say(self._attempt, text)


Handler: TypeAlias = Callable[[JobContext], Awaitable[JSON]]
"""Runs one attempt and returns the job's result.

A PenstockError that is not `retryable` fails the job at once; any other exception is retried while attempts are left.
"""
