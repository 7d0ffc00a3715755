"""Turning what a caller asks for into what an engine stores: checks, ids, digests, encoded payloads."""

import hashlib
import math
import re
from collections.abc import Sequence

import msgspec

from penstock.errors import InvalidInput, TooLarge
from penstock.ids import new_id
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import Outcome, Report
from penstock.types import JSON, Job, JobState, NewJob, Priority

_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
_MAX_MESSAGE = 4096


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A checked job on its way into an engine. `payload` is JSON text; `digest` tells equal requests from others."""

    id: str
    kind: str
    tenant: str
    priority: str
    payload: str
    size_bytes: int
    digest: str
    key: str | None
    subject: str | None
    run_at: float | None
    deadline: float | None
    time_limit_s: float
    max_attempts: int
    result_ttl_s: float
    weight: float


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A checked outcome on its way into an engine. `delay_s`: the pause before the next attempt, if there is one."""

    id: str
    attempt: int
    result: str | None = None
    code: str | None = None
    message: str = ""
    retry: bool = False
    cancelled: bool = False
    delay_s: float = 0.0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Checked events of one job on their way into its log: `(type, JSON text)` each."""

    id: str
    attempt: int
    events: Sequence[tuple[str, str]]
    progress: str | None = None


def encode(value: JSON, what: str, limit: int) -> str:
    """JSON text of a value. Raises InvalidInput where JSON cannot say it, TooLarge beyond `limit` bytes."""
    try:
        encoded = msgspec.json.encode(value, order="deterministic")
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidInput(f"{what} is not JSON: {exc}") from exc
    if len(encoded) > limit:
        raise TooLarge(f"{what} has {len(encoded)} bytes as JSON; at most {limit} are allowed")
    return encoded.decode()


def draft(job: NewJob, options: JobsOptions) -> Draft:
    """Check a new job. Raises InvalidInput or TooLarge."""
    if not _KIND.fullmatch(job.kind):
        raise InvalidInput(f"a job's kind is 1 to 64 letters, digits, '_', '.', '-'; not {job.kind!r}")
    for what, name in (("tenant", job.tenant), ("id", job.id), ("subject", job.subject), ("key", job.idempotency_key)):
        if name is not None and not _NAME.fullmatch(name):
            raise InvalidInput(f"a job's {what} is 1 to 255 characters without control characters; not {name[:80]!r}")
    if job.max_attempts < 1:
        raise InvalidInput(f"max_attempts is at least 1; not {job.max_attempts}")
    for what, number in (("time_limit_s", job.time_limit_s), ("result_ttl_s", job.result_ttl_s)):
        if not (math.isfinite(number) and number > 0):
            raise InvalidInput(f"{what} is a positive number of seconds; not {number}")
    for what, moment in (("run_at", job.run_at), ("deadline", job.deadline)):
        if moment is not None and not math.isfinite(moment):
            raise InvalidInput(f"{what} is a Unix time in seconds; not {moment}")
    payload = encode(job.payload, "the payload", options.max_payload_bytes)
    return Draft(
        id=job.id or new_id("job"),
        kind=job.kind,
        tenant=job.tenant,
        priority=job.priority.value,
        payload=payload,
        size_bytes=len(payload.encode()),
        digest=hashlib.blake2b(f"{job.kind}\n{payload}".encode(), digest_size=16).hexdigest(),
        key=job.idempotency_key,
        subject=job.subject,
        run_at=job.run_at,
        deadline=job.deadline,
        time_limit_s=job.time_limit_s,
        max_attempts=job.max_attempts,
        result_ttl_s=job.result_ttl_s,
        weight=options.weights.get(job.tenant, 1.0),
    )


def new_job(draft: Draft, run_at: float, now: float) -> Job:
    """The job that a draft becomes."""
    return Job(
        id=draft.id,
        kind=draft.kind,
        tenant=draft.tenant,
        priority=Priority(draft.priority),
        state=JobState.QUEUED,
        payload=msgspec.json.decode(draft.payload),
        max_attempts=draft.max_attempts,
        subject=draft.subject,
        idempotency_key=draft.key,
        created_at=now,
        run_at=run_at,
        deadline=draft.deadline,
        time_limit_s=draft.time_limit_s,
        result_ttl_s=draft.result_ttl_s,
    )


def ending(job_id: str, attempt: int, outcome: Outcome, options: JobsOptions, delay_s: float) -> Ending:
    """Check an outcome. A result that is no JSON or too large becomes a failure: the job must still end."""
    if outcome.failure is not None:
        failure = outcome.failure
        return Ending(
            id=job_id,
            attempt=attempt,
            code=failure.code,
            message=failure.message[:_MAX_MESSAGE],
            retry=outcome.retry,
            delay_s=delay_s,
        )
    if outcome.cancelled:
        return Ending(id=job_id, attempt=attempt, cancelled=True)
    try:
        result = encode(outcome.result, "the result", options.max_result_bytes)
    except InvalidInput as exc:
        return Ending(id=job_id, attempt=attempt, code=exc.code, message=exc.message)
    return Ending(id=job_id, attempt=attempt, result=result)


def entry(report: Report, options: JobsOptions) -> Entry:
    """Check a report. Raises InvalidInput or TooLarge."""
    lines = [(event.type, encode(event.data, "the event", options.max_event_bytes)) for event in report.events]
    text = None
    if report.progress is not None:
        text = encode(report.progress, "the progress", options.max_event_bytes)
        lines.append(("progress", text))
    return Entry(id=report.job_id, attempt=report.attempt, events=lines, progress=text)
