"""Questions that were accepted for later: the job store alone knows them, so should it lose one, we can tell."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from penstock.types import Failure, Job, JobState

KEPT_S: Final = 3600.0
MOST: Final = 10_000
LOST: Final = Failure(
    code="lost", message="The job store lost this job before it ended (it was wiped or set back). Ask again."
)


def lost(job: Job) -> Job:
    """What a job that was accepted comes to when its store knows it no more."""
    return replace(job, state=JobState.FAILED, error=LOST)


class Promises:
    """The newest jobs of which callers of this process have only the id. A record of them outlives `KEPT_S` in the job
    store, so one that is not there by then was lost. `clock` is monotonic, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: OrderedDict[str, tuple[float, Job]] = OrderedDict()

    def keep(self, job: Job) -> None:
        self._jobs[job.id] = self._clock() + KEPT_S, replace(job, payload={})
        while len(self._jobs) > MOST:
            self._jobs.popitem(last=False)

    def lost(self, job_id: str, tenant: str) -> Job | None:
        """What became of a job that the job store does not know: failed as `lost`. None where it was not ours."""
        until, job = self._jobs.get(job_id, (0.0, None))
        return lost(job) if job is not None and job.tenant == tenant and self._clock() < until else None
