"""Verbs about jobs, queues and workers."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

import msgspec

from penstock.client.flow import Call, Emit, Flow, Pause, Query, Stream
from penstock.client.options import ClientOptions
from penstock.client.records import JobPage, JobsChanged, QueueHealth, QueueList, Readiness, WorkerList
from penstock.client.requests import request
from penstock.client.sse import EventReader, ServerEvent
from penstock.client.verb import stream_verb, verb
from penstock.errors import ProviderError
from penstock.types import FINAL_JOB_STATES, JSON, Job, JobEvent, JobState, Priority, WorkerInfo


class JobVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def get_job(self, job_id: str) -> Flow[Job]:
        """`NotFound` once it is forgotten."""
        return get_job(self.options, job_id)

    @verb
    def list_jobs(
        self,
        *,
        states: Sequence[JobState] = (),
        kinds: Sequence[str] = (),
        priorities: Sequence[Priority] = (),
        subject: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Flow[JobPage]:
        """One page, newest first; every filter that is given must match."""
        query: Query = {
            "state": [*states],
            "kind": [*kinds],
            "priority": [*priorities],
            "subject": subject,
            "cursor": cursor,
            "limit": limit,
        }
        return request(self.options, Call(method="GET", path="/v1/jobs", query=query), JobPage)

    @verb
    def cancel_job(self, job_id: str) -> Flow[Job]:
        """Queued: at once; running: within a second. A job in a final state stays as it is."""
        return request(self.options, Call(method="POST", path=f"{job_path(job_id)}/cancel"), Job)

    @verb
    def retry_job(self, job_id: str) -> Flow[Job]:
        """Gives a failed or cancelled job new attempts; `Conflict` for any other."""
        call = Call(method="POST", path=f"{job_path(job_id)}/retry", repeatable=False)
        return request(self.options, call, Job)

    @verb
    def cancel_jobs(
        self, *, states: Sequence[JobState] = (), kinds: Sequence[str] = (), dry_run: bool = False
    ) -> Flow[JobsChanged]:
        """Cancels all that match."""
        return _change(self.options, "cancel", states, kinds, dry_run=dry_run)

    @verb
    def retry_jobs(
        self, *, states: Sequence[JobState] = (), kinds: Sequence[str] = (), dry_run: bool = False
    ) -> Flow[JobsChanged]:
        """Gives new attempts to all that match."""
        return _change(self.options, "retry", states, kinds, dry_run=dry_run)

    @stream_verb
    def job_events(self, job_id: str, *, after: int = 0) -> Stream[JobEvent]:
        """What happens to the job, as it happens, to its end; begins behind the event `after`. Survives broken
        connections without losing or doubling an event."""
        call = Call(method="GET", path=f"{job_path(job_id)}/events")
        reader = EventReader(self.options, call, after=after)
        while (event := (yield from reader.next())) is not None:
            told = job_event(event)
            yield Emit(told)
            if is_end(told):
                return

    @verb
    def wait_job(self, job_id: str, *, timeout_s: float = 600.0) -> Flow[Job]:
        """The job once it is final, or as it is after the time."""
        return wait_job(self.options, job_id, timeout_s)


class ServerVerbs:
    """A mix-in of both clients."""

    options: ClientOptions

    @verb
    def queues(self) -> Flow[Sequence[QueueHealth]]:
        """The health of each priority class."""
        reply = yield from request(self.options, Call(method="GET", path="/v1/queues"), QueueList)
        return reply.queues

    @verb
    def workers(self) -> Flow[Sequence[WorkerInfo]]:
        """The worker processes that were seen lately."""
        reply = yield from request(self.options, Call(method="GET", path="/v1/workers"), WorkerList)
        return reply.workers

    @verb
    def ready(self) -> Flow[Readiness]:
        """Whether all parts of the server answer and its models are loaded. `Unavailable` when nobody is there."""
        call = Call(method="GET", path="/readyz", also=(HTTPStatus.SERVICE_UNAVAILABLE,))
        return request(self.options, call, Readiness)


def get_job(options: ClientOptions, job_id: str) -> Flow[Job]:
    return request(options, Call(method="GET", path=job_path(job_id)), Job)


def wait_job(options: ClientOptions, job_id: str, timeout_s: float) -> Flow[Job]:
    until = time.monotonic() + timeout_s
    pause_s = 0.02
    while True:
        job = yield from get_job(options, job_id)
        if job.state.final or time.monotonic() + pause_s > until:
            return job
        yield Pause(pause_s)
        pause_s = min(2 * pause_s, 1.0)


def job_event(event: ServerEvent) -> JobEvent:
    """Raises `ProviderError` for an event that is none of a job."""
    try:
        data = msgspec.json.decode(event.data, type=dict[str, JSON])
        attempt, at = int(data.pop("attempt", 0)), float(data.pop("at", 0.0))
        return JobEvent(seq=int(event.id or 0), type=event.type, data=data, attempt=attempt, at=at)
    except (TypeError, ValueError) as exc:  # msgspec's errors are ValueErrors
        raise ProviderError(f"The server sent an event that is none of a job ({exc}).", code="bad_reply") from exc


def is_end(event: JobEvent) -> bool:
    return event.type == "state" and event.data.get("state") in FINAL_JOB_STATES


def _change(
    options: ClientOptions, verb_name: str, states: Sequence[JobState], kinds: Sequence[str], *, dry_run: bool
) -> Flow[JobsChanged]:
    body = {"states": [*states], "kinds": [*kinds], "dry_run": dry_run}
    call = Call(method="POST", path=f"/v1/jobs/{verb_name}", json=body, repeatable=False)
    return request(options, call, JobsChanged)


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
