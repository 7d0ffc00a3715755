"""Who still wants a job's result: a question that nobody waits for any more is cancelled, and its model call too."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Watched:
    kept: bool
    """The job outlives its watchers: somebody has its id and may come back for the result."""
    watchers: int = 0


class Watchers:
    """Counts, per job, the connections of this process that wait for it. Holds an entry only while there is one."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Watched] = {}

    @contextmanager
    def watching(self, job_id: str, *, created: bool) -> Iterator[None]:
        """`created`: this request made the job. A job that we find made, and not watched here, is somebody else's."""
        entry = self._jobs.setdefault(job_id, _Watched(kept=not created))
        entry.watchers += 1
        try:
            yield
        finally:
            entry.watchers -= 1
            if not entry.watchers:
                del self._jobs[job_id]

    def keep(self, job_id: str) -> None:
        """Somebody was given the job's id and does not wait."""
        if entry := self._jobs.get(job_id):
            entry.kept = True

    def alone(self, job_id: str) -> bool:
        """Whether the one who asks, while it watches, is the last who wants the job."""
        entry = self._jobs[job_id]
        return entry.watchers == 1 and not entry.kept
