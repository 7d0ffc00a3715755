"""Enqueue: what is known already, whether there is room, the rank, and the insert."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import Conflict
from penstock.jobs.admission import fits, overloaded
from penstock.jobs.drafts import Draft, new_job
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import Enqueued
from penstock.jobs.sqlite.measures import drain_per_s
from penstock.jobs.sqlite.rows import encode, jobs, read
from penstock.types import Priority

_KNOWN = """SELECT json_group_array(json_array(id, tenant, key, digest)) FROM job WHERE n IN (
    SELECT n FROM job WHERE id IN (SELECT value ->> 0 FROM json_each(?1))
    UNION SELECT job.n FROM json_each(?1) AS asked
    JOIN job ON job.tenant = asked.value ->> 1 AND job.key = asked.value ->> 2)"""
_LANES = """SELECT json_group_array(json_array(lane.priority, lane.tenant, jobs, size_bytes, rank))
    FROM json_each(?) AS asked
    JOIN lane ON lane.priority = asked.value ->> 0 AND lane.tenant = asked.value ->> 1"""
_ACTIVE = """SELECT count(*) FROM (SELECT 1 FROM lane WHERE priority = ? AND jobs > 0 AND tenant <> '' LIMIT 100)"""
_INSERT = """INSERT INTO job (id, kind, tenant, priority, payload, size_bytes, digest, key, subject, rank, run_at, due,
        deadline, time_limit_s, max_attempts, result_ttl_s, created_at)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, value ->> 15,
        value ->> 16 FROM json_each(?)"""
_SAVE_LANES = """INSERT INTO lane (priority, tenant, jobs, size_bytes, rank)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true
    ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs, size_bytes = size_bytes + excluded.size_bytes,
        rank = max(rank, excluded.rank)"""

WHOLE_CLASS = ""
"""The tenant of the lane that sums up a class; its rank is the one last leased (the class's virtual time)."""


@dataclass(slots=True)
class Lane:
    """What is live of one tenant in one class, and what this transaction adds to it."""

    jobs: int = 0
    size_bytes: int = 0
    rank: float = 0.0
    more_jobs: int = 0
    more_bytes: int = 0

    def add(self, jobs: int, size_bytes: int) -> None:
        self.more_jobs += jobs
        self.more_bytes += size_bytes


Lanes = dict[tuple[str, str], Lane]


def save_lanes(cx: sqlite3.Connection, lanes: Lanes) -> None:
    """Add what was added, raise the ranks."""
    changed = [(*name, lane.more_jobs, lane.more_bytes, lane.rank) for name, lane in lanes.items()]
    cx.execute(_SAVE_LANES, (encode(changed),))


def enqueue(cx: sqlite3.Connection, drafts: Sequence[Draft], options: JobsOptions, now: float) -> list[Enqueued]:
    """All or nothing. Raises Conflict, Overloaded."""
    answers, fresh = _resolve(cx, drafts)
    accepted: dict[str, Enqueued] = {}
    if fresh:
        lanes = _lanes(cx, fresh)
        _admit(cx, fresh, lanes, options, now)
        accepted = _insert(cx, fresh, lanes, now)
    others = [job_id for job_id in answers if job_id not in accepted]
    found = (
        {job.id: job for _, job in jobs(cx, "id IN (SELECT value FROM json_each(?))", (encode(others),))}
        if others
        else {}
    )
    given = []
    for job_id in answers:
        if (first := accepted.get(job_id)) is not None and job_id not in found:
            found[job_id] = first.job
            given.append(first)
        else:
            given.append(Enqueued(job=found[job_id], created=False))
    return given


def _resolve(cx: sqlite3.Connection, drafts: Sequence[Draft]) -> tuple[list[str], list[Draft]]:
    """For each draft the id of the job that answers it, and the drafts that are new. Raises Conflict."""
    asked = encode([(draft.id, draft.tenant, draft.key) for draft in drafts])
    known: dict[tuple[str, ...], tuple[str, str, str]] = {}
    for job_id, tenant, key, digest in read(cx, _KNOWN, (asked,), list[tuple[str, str, str | None, str]]):
        for name in _names(job_id, tenant, key):
            known[name] = tenant, digest, job_id
    answers, fresh = [], []
    for draft in drafts:
        names = _names(draft.id, draft.tenant, draft.key)
        earlier = next((known[name] for name in names if name in known), None)
        if earlier is None:
            fresh.append(draft)
            known.update(dict.fromkeys(names, (draft.tenant, draft.digest, draft.id)))
        elif earlier[:2] != (draft.tenant, draft.digest):
            what = f"the id {draft.id!r}" if draft.key is None else f"the idempotency key {draft.key!r}"
            raise Conflict(f"{what} was used before for a job with another payload", code="idempotency_conflict")
        answers.append(earlier[2] if earlier else draft.id)
    return answers, fresh


def _names(job_id: str, tenant: str, key: str | None) -> list[tuple[str, ...]]:
    return [(job_id,)] if key is None else [(job_id,), (tenant, key)]


def _lanes(cx: sqlite3.Connection, drafts: Sequence[Draft]) -> Lanes:
    """The lanes of the drafts and of every class as a whole, with what the drafts add."""
    names = {(draft.priority, draft.tenant) for draft in drafts} | {(each.value, WHOLE_CLASS) for each in Priority}
    lanes = {name: Lane() for name in names}
    for priority, tenant, count, size_bytes, rank in read(
        cx, _LANES, (encode(sorted(names)),), list[tuple[str, str, int, int, float]]
    ):
        lanes[priority, tenant] = Lane(count, size_bytes, rank)
    for draft in drafts:
        for tenant in (draft.tenant, WHOLE_CLASS):
            lanes[draft.priority, tenant].add(1, draft.size_bytes)
    return lanes


def _admit(cx: sqlite3.Connection, drafts: Sequence[Draft], lanes: Lanes, options: JobsOptions, now: float) -> None:
    for priority, tenant in {(draft.priority, draft.tenant) for draft in drafts}:
        for name, whose, limits in (
            (tenant, f"this tenant's {priority} jobs", options.tenant_limits),
            (WHOLE_CLASS, f"{priority} jobs", options.limits),
        ):
            limit, lane = limits.get(Priority(priority)), lanes[priority, name]
            live, size_bytes = lane.jobs + lane.more_jobs, lane.size_bytes + lane.more_bytes
            if limit is not None and not fits(live, size_bytes, limit):
                raise overloaded(whose, live, size_bytes, limit, drain_per_s(cx, priority, now))


def _insert(cx: sqlite3.Connection, drafts: Sequence[Draft], lanes: Lanes, now: float) -> dict[str, Enqueued]:
    """Rank by start-time fair queueing (Goyal et al. 1996): after the tenant's last, not before the class's now."""
    accepted, lines = {}, []
    active: dict[str, int] = {}
    for draft in drafts:
        lane, whole = lanes[draft.priority, draft.tenant], lanes[draft.priority, WHOLE_CLASS]
        rank = max(whole.rank, lane.rank)
        lane.rank = rank + 1.0 / draft.weight
        if draft.priority not in active:
            active[draft.priority] = cx.execute(_ACTIVE, (draft.priority,)).fetchone()[0]
        run_at = now if draft.run_at is None else draft.run_at
        due = run_at if run_at > now else None
        job = new_job(draft, run_at, now)
        position = _position(draft, rank, lanes, active[draft.priority])
        accepted[draft.id] = Enqueued(job=job, created=True, position=position)
        lines.append((
            draft.id, draft.kind, draft.tenant, draft.priority, draft.payload, draft.size_bytes, draft.digest,
            draft.key, draft.subject, rank, run_at, due, draft.deadline, draft.time_limit_s, draft.max_attempts,
            draft.result_ttl_s, now,
        ))  # fmt: skip
    cx.execute(_INSERT, (encode(lines),))
    save_lanes(cx, lanes)
    return accepted


def _position(draft: Draft, rank: float, lanes: Lanes, active: int) -> int:
    """An estimate: whatever is in the classes above, and of each busy tenant as much as lies before the rank."""
    ahead = 0
    for priority in Priority:
        whole = lanes[priority.value, WHOLE_CLASS]
        if priority.value == draft.priority:
            return ahead + min(whole.jobs, round((rank - whole.rank) * draft.weight * max(1, active)))
        ahead += whole.jobs
    return ahead
