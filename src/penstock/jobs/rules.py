"""What becomes of a job: the state machine's decisions, as functions from a job's row to the change to write.

The Redis engine says the same in Lua; the contract suite and the state machine test hold the two together.
"""

from dataclasses import replace

import msgspec

from penstock.jobs.drafts import Ending
from penstock.jobs.options import JobsOptions
from penstock.types import Failure, JobState

KEEP_FAILURES = 20

DIED = Failure(code="worker_died", message="worker died: its lease ran out and no attempt is left")
EXPIRED = Failure(code="deadline_exceeded", message="the deadline passed before the job was started; it was not run")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What the decisions need to know of a job. `excused` attempts do not count against `max_attempts`."""

    id: str
    state: JobState
    priority: str
    tenant: str
    size_bytes: int
    attempt: int
    excused: int
    max_attempts: int
    cancel: bool
    failures: list[Failure]
    run_at: float
    started_at: float | None
    result_ttl_s: float
    deadline: float | None

    @property
    def attempts_left(self) -> int:
        return self.max_attempts - (self.attempt - self.excused)


class Change(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The whole new mutable part of a row, and the event that tells of it. JSON texts where a field is JSON.

    `due`: not ready before (None: ready now). `alone`: on its last attempt after losing the others.
    """

    id: str
    state: JobState
    event: str
    failures: list[Failure]
    run_at: float
    excused: int
    result: str | None = None
    error: str | None = None
    due: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    events_until: float | None = None
    deadline: float | None = None
    alone: bool = False
    cancel: bool = False


class Rules:
    """The decisions under given options. `now` is wall time."""

    def __init__(self, options: JobsOptions) -> None:
        self._options = options

    def settle(self, row: Row, ending: Ending, now: float) -> Change:
        """An attempt said how it ended. A cancel that was asked for wins over whatever it says."""
        failures, failure = row.failures, None
        if ending.code is not None:
            failure = Failure(code=ending.code, message=ending.message, attempt=row.attempt, at=now)
            failures = [*failures, failure][-KEEP_FAILURES:]
        if row.cancel or ending.cancelled:
            return self._final(row, JobState.CANCELLED, now, failures)
        if failure is None:
            return self._final(row, JobState.SUCCEEDED, now, failures, result=ending.result)
        if ending.retry and row.attempts_left > 0:
            return self._requeue(row, now, failures, reason=failure, delay_s=ending.delay_s)
        return self._final(row, JobState.FAILED, now, failures, failure)

    def lose(self, row: Row, now: float) -> Change:
        """The worker fell silent or died. With one attempt left, the job will run alone among its like."""
        if row.cancel:
            return self._final(row, JobState.CANCELLED, now, row.failures)
        failure = replace(DIED, attempt=row.attempt, at=now)
        failures = [*row.failures, failure][-KEEP_FAILURES:]
        if row.attempts_left > 0:
            return self._requeue(row, now, failures, reason=failure, alone=row.attempts_left == 1)
        return self._final(row, JobState.FAILED, now, failures, failure)

    def hand_back(self, row: Row, now: float) -> Change:
        """A stopping worker gave the job back; the attempt does not count."""
        if row.cancel:
            return self._final(row, JobState.CANCELLED, now, row.failures)
        return self._requeue(row, now, row.failures, excused=row.excused + 1)

    def cancel_queued(self, row: Row, now: float) -> Change:
        return self._final(row, JobState.CANCELLED, now, row.failures)

    def miss_deadline(self, row: Row, now: float) -> Change:
        failure = replace(EXPIRED, attempt=row.attempt, at=now)
        return self._final(row, JobState.FAILED, now, [*row.failures, failure][-KEEP_FAILURES:], failure)

    def retry(self, row: Row, now: float) -> Change:
        """Somebody asked for it: all attempts are renewed, and the deadline is gone."""
        row = msgspec.structs.replace(row, deadline=None)
        return self._requeue(row, now, row.failures, excused=row.attempt)

    def _final(
        self,
        row: Row,
        state: JobState,
        now: float,
        failures: list[Failure],
        error: Failure | None = None,
        *,
        result: str | None = None,
    ) -> Change:
        told = {"state": state} if error is None else {"state": state, "code": error.code, "message": error.message}
        return Change(
            id=row.id,
            state=state,
            event=_text(told),
            failures=failures,
            run_at=row.run_at,
            excused=row.excused,
            result=result,
            error=None if error is None else _text(error),
            finished_at=now,
            expires_at=now + row.result_ttl_s,
            events_until=now + min(row.result_ttl_s, self._options.events_ttl_s),
            deadline=row.deadline,
            cancel=row.cancel,
        )

    def _requeue(
        self,
        row: Row,
        now: float,
        failures: list[Failure],
        *,
        reason: Failure | None = None,
        delay_s: float = 0.0,
        excused: int | None = None,
        alone: bool = False,
    ) -> Change:
        told: dict[str, object] = {"state": JobState.QUEUED}
        if reason is not None:
            told |= {"code": reason.code, "message": reason.message, "retry_in_s": round(delay_s, 3)}
        return Change(
            id=row.id,
            state=JobState.QUEUED,
            event=_text(told),
            failures=failures,
            run_at=now + delay_s,
            excused=row.excused if excused is None else excused,
            due=now + delay_s if delay_s > 0 else None,
            deadline=row.deadline,
            alone=alone,
        )


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
