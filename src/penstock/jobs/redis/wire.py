"""What goes to the scripts and comes back: msgpack and JSON, nothing else."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from penstock.jobs import histogram
from penstock.jobs.drafts import Draft, Ending, Entry
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import JobFilter, QueueStats
from penstock.jobs.rules import DIED, EXPIRED, KEEP_FAILURES
from penstock.types import JSON, Failure, Job, JobEvent, JobState, Priority, Progress, WorkerInfo

Fields = Sequence[bytes | None]

pack = msgspec.msgpack.encode


class _Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a job that never changes."""

    id: str
    kind: str
    tenant: str
    priority: Priority
    payload: msgspec.Raw
    subject: str | None
    idempotency_key: str | None
    max_attempts: int
    time_limit_s: float
    result_ttl_s: float


_spec = msgspec.json.Decoder(_Spec)
_stored = msgspec.msgpack.Decoder(tuple[str, int, int, str, str, float])
_pushed = msgspec.msgpack.Decoder(list[tuple[str, int, int, str, str, float]])


def _text(value: JSON) -> str:
    return msgspec.json.encode(value).decode()


def _open_failure(failure: Failure) -> str:
    """The failure's JSON text up to where its time belongs."""
    return _text({"code": failure.code, "message": failure.message, "attempt": failure.attempt})[:-1] + ',"at":'


def _told(state: JobState, failure: Failure, **more: JSON) -> str:
    return _text({"state": state, "code": failure.code, "message": failure.message} | more)


def settings(options: JobsOptions) -> bytes:
    """What every script is told, so that the numbers stand in one place."""
    return pack(
        {
            "lease_s": options.lease_s,
            "max_events": options.max_events,
            "events_ttl_s": options.events_ttl_s,
            "aged_after_s": options.aged_after_s,
            "aged_every": options.aged_every,
            "keep_failures": KEEP_FAILURES,
            "slot_s": histogram.SLOT_S,
            "keep_s": histogram.KEEP_S,
            "drain_s": histogram.DRAIN_S,
            # the attempt is only known there, so these end before it
            "died": _text({"code": DIED.code, "message": DIED.message})[:-1] + ',"attempt":',
            "died_retry": _told(JobState.QUEUED, DIED, retry_in_s=0.0),
            "died_final": _told(JobState.FAILED, DIED),
            "expired": _text({"code": EXPIRED.code, "message": EXPIRED.message})[:-1] + ',"attempt":',
            "expired_final": _told(JobState.FAILED, EXPIRED),
        }
    )


def limits(options: JobsOptions) -> bytes:
    return pack(
        [
            {priority.value: [limit.jobs, limit.payload_bytes] for priority, limit in each.items()}
            for each in (options.limits, options.tenant_limits)
        ]
    )


def drafts(new: Sequence[Draft]) -> bytes:
    return pack([
        [
            draft.id, draft.kind, draft.tenant, draft.priority, _spec_of(draft), draft.size_bytes, draft.digest,
            draft.key or "", draft.subject or "", "" if draft.run_at is None else draft.run_at,
            "" if draft.deadline is None else draft.deadline, draft.max_attempts, draft.result_ttl_s, draft.weight,
        ]
        for draft in new
    ])  # fmt: skip


def _spec_of(draft: Draft) -> str:
    return msgspec.json.encode(
        _Spec(
            id=draft.id,
            kind=draft.kind,
            tenant=draft.tenant,
            priority=Priority(draft.priority),
            payload=msgspec.Raw(draft.payload),
            subject=draft.subject,
            idempotency_key=draft.key,
            max_attempts=draft.max_attempts,
            time_limit_s=draft.time_limit_s,
            result_ttl_s=draft.result_ttl_s,
        )
    ).decode()


def entries(reports: Sequence[Entry]) -> bytes:
    return pack([[entry.id, entry.attempt, entry.progress or "", list(entry.events)] for entry in reports])


def endings(ends: Sequence[Ending]) -> bytes:
    return pack([_ending(end) for end in ends])


def _ending(end: Ending) -> list[JSON]:
    if end.code is None:
        how = "cancelled" if end.cancelled else "ok"
        return [end.id, end.attempt, how, end.result or "null", "", "", "", 0]
    failure = Failure(code=end.code, message=end.message, attempt=end.attempt)
    return [
        end.id,
        end.attempt,
        "retry" if end.retry else "failed",
        "",
        _open_failure(failure),
        _told(JobState.FAILED, failure),
        _told(JobState.QUEUED, failure, retry_in_s=round(end.delay_s, 3)),
        end.delay_s,
    ]


def where(wanted: JobFilter) -> bytes:
    return pack(
        {
            "states": {state.value: True for state in wanted.states},
            "tenant": wanted.tenant or "",
            "kinds": dict.fromkeys(wanted.kinds, True),
            "classes": {priority.value: True for priority in wanted.priorities},
            "subject": wanted.subject or "",
        }
    )


def job(fields: Fields) -> Job:
    """A job from its fields, in the order of FIELDS in `lua/common.lua`."""
    (_, spec, state, attempt, worker, cancel, created_at, run_at, deadline, started_at, finished_at, progress, result,
     error, failures, excused) = (value or b"" for value in fields)  # fmt: skip
    fixed = _spec.decode(spec)
    return Job(
        id=fixed.id,
        kind=fixed.kind,
        tenant=fixed.tenant,
        priority=fixed.priority,
        state=JobState(state.decode()),
        payload=msgspec.json.decode(fixed.payload),
        attempt=int(attempt),
        max_attempts=fixed.max_attempts,
        excused=int(excused),
        subject=fixed.subject,
        idempotency_key=fixed.idempotency_key,
        progress=msgspec.json.decode(progress, type=Progress) if progress else None,
        result=msgspec.json.decode(result) if result else None,
        error=msgspec.json.decode(error, type=Failure) if error else None,
        failures=[msgspec.json.decode(line, type=Failure) for line in failures.splitlines()],
        worker=worker.decode() or None,
        cancel_requested=cancel == b"1",
        created_at=float(created_at),
        run_at=float(run_at),
        deadline=_moment(deadline),
        started_at=_moment(started_at),
        finished_at=_moment(finished_at),
        time_limit_s=fixed.time_limit_s,
        result_ttl_s=fixed.result_ttl_s,
    )


def _moment(value: bytes) -> float | None:
    return float(value) if value else None


def events(stored: Sequence[bytes]) -> list[JobEvent]:
    return [_event(*_stored.decode(each))[1] for each in stored]


def pushed(message: bytes) -> list[tuple[str, JobEvent]]:
    """The events that one script told of, with their jobs' ids."""
    return [_event(*each) for each in _pushed.decode(message)]


def _event(job_id: str, seq: int, attempt: int, kind: str, data: str, at: float) -> tuple[str, JobEvent]:
    return job_id, JobEvent(seq=seq, type=kind, data=msgspec.json.decode(data), attempt=attempt, at=at)


def ids(found: Sequence[bytes]) -> frozenset[str]:
    return frozenset(each.decode() for each in found)


def stats(classes: Sequence[Sequence[Any]]) -> list[QueueStats]:
    found = []
    for priority, (ready, live, delayed, dead, oldest, drained, flat) in zip(Priority, classes, strict=True):
        times: dict[str, dict[int, int]] = {"wait": {}, "run": {}}
        for field, more in zip(flat[::2], flat[1::2], strict=True):
            name, _, bucket = field.decode().partition(":")
            times[name][int(bucket)] = more
        found.append(
            QueueStats(
                priority=priority,
                ready=ready,
                running=max(0, live - ready - delayed),
                delayed=delayed,
                dead=dead,
                oldest_ready_age_s=float(oldest),
                drain_per_s=drained / histogram.DRAIN_S,
                wait_s=histogram.percentiles(times["wait"]),
                run_s=histogram.percentiles(times["run"]),
            )
        )
    return found


def workers(found: Sequence[tuple[bytes, bytes]]) -> list[WorkerInfo]:
    return [replace(msgspec.json.decode(info, type=WorkerInfo), seen_at=float(seen)) for info, seen in found]
