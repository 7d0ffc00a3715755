"""The records that only jobs speak; those that everyone speaks are in `penstock.types`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.types import JSON, Failure, Job, JobState, Priority, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """The answer to an enqueue: `created` is False when the idempotency key found an earlier job with the same payload.

    `position` counts the ready jobs that will be leased before it, as far as is known.
    """

    job: Job
    created: bool
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a heartbeat learned: leases that are lost (stop, write nothing) and jobs whose cancel was asked for."""

    lost: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended: a result, a failure (`retry`: give it another attempt if one is left) or cancelled."""

    result: JSON = None
    failure: Failure | None = None
    retry: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; every field that is set must match."""

    tenant: str | None = None
    states: frozenset[JobState] = frozenset()
    kinds: frozenset[str] = frozenset()
    priorities: frozenset[Priority] = frozenset()
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of jobs, newest first. `cursor` is given back to get the next page; None at the end."""

    jobs: Sequence[Job]
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """The health of one class. Ages and times in seconds; percentiles over the last few minutes (None: nothing ran)."""

    priority: Priority
    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_ready_age_s: float = 0.0
    drain_per_s: float = 0.0
    wait_s: Mapping[str, float] = field(default_factory=dict)
    run_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event on its way into a job's log; the store gives it its sequence number."""

    type: str
    data: Mapping[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a running attempt has to say: events for the job's log, and how far it is."""

    job_id: str
    attempt: int
    events: Sequence[NewEvent] = ()
    progress: Progress | None = None
