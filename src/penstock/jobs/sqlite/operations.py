"""The state machine on SQLite: each function is one operation inside the writer's transaction.

Every function does a fixed number of statements whatever the number of jobs (see `rows` for why).
"""
# ruff: noqa: S608 (statements are put together from our own constants; values are always bound)

import sqlite3
from collections.abc import Callable, Mapping, Sequence

from penstock.jobs import histogram
from penstock.jobs.drafts import Ending, Entry
from penstock.jobs.options import JobsOptions
from penstock.jobs.records import Beat
from penstock.jobs.rules import Change, Row, Rules
from penstock.jobs.sqlite import measures
from penstock.jobs.sqlite.rows import encode, read, rows
from penstock.jobs.sqlite.submit import WHOLE_CLASS, Lane, Lanes, save_lanes

_BATCH = 500
_CHANGE = """UPDATE job SET state = value ->> 1, failures = value -> 3, run_at = value ->> 4, excused = value ->> 5,
        result = value ->> 6, error = value ->> 7, due = value ->> 8, finished_at = value ->> 9,
        expires_at = value ->> 10, events_until = value ->> 11, deadline = value ->> 12, alone = value ->> 13,
        cancel = value ->> 14, worker = NULL, lease_until = NULL, seq = seq + 1
    FROM json_each(?) WHERE job.id = value ->> 0"""
_TELL = """INSERT INTO event (job, seq, attempt, type, data, at)
    SELECT job.id, job.seq, job.attempt, 'state', value ->> 2, ?2 FROM json_each(?1) JOIN job ON job.id = value ->> 0"""
_HELD = "state = 'running' AND id IN (SELECT value ->> 0 FROM json_each(?))"
_LISTED = "id IN (SELECT value FROM json_each(?))"


def write(cx: sqlite3.Connection, changes: Sequence[tuple[Row, Change]], now: float) -> None:
    """Write changes of state with all that follows from them: events, what is live, what was measured."""
    if not changes:
        return
    text = encode([change for _, change in changes])
    cx.execute(_CHANGE, (text,))
    cx.execute(_TELL, (text, now))
    lanes: Lanes = {}
    for row, change in changes:
        more = (not change.state.final) - (not row.state.final)
        if more:
            for tenant in (row.tenant, WHOLE_CLASS):
                lanes.setdefault((row.priority, tenant), Lane()).add(more, more * row.size_bytes)
    if lanes:
        save_lanes(cx, lanes)
    measures.save(cx, changes, now)


def finish(cx: sqlite3.Connection, endings: Sequence[Ending], rules: Rules, now: float) -> frozenset[str]:
    """Returns the ids whose lease is lost."""
    held = {row.id: row for row in rows(cx, _HELD, (encode([(ending.id,) for ending in endings]),))}
    changes: dict[str, tuple[Row, Change]] = {}
    lost = set()
    for ending in endings:
        row = held.get(ending.id)
        if row is None or row.attempt != ending.attempt or row.id in changes:
            lost.add(ending.id)
        else:
            changes[row.id] = row, rules.settle(row, ending, now)
    write(cx, list(changes.values()), now)
    return frozenset(lost)


def change_where(
    cx: sqlite3.Connection,
    condition: str,
    arguments: Sequence[object],
    rule: Callable[[Row, float], Change],
    now: float,
) -> int:
    """Apply a rule to the jobs that match; returns how many."""
    found = rows(cx, condition, arguments)
    write(cx, [(row, rule(row, now)) for row in found], now)
    return len(found)


def cancel(cx: sqlite3.Connection, job_ids: Sequence[str], rules: Rules, now: float) -> int:
    """The queued ones are cancelled, the running ones marked; returns how many of either."""
    listed = (encode(job_ids),)
    queued = change_where(cx, f"state = 'queued' AND {_LISTED}", listed, rules.cancel_queued, now)
    running = cx.execute(f"UPDATE job SET cancel = 1 WHERE state = 'running' AND cancel = 0 AND {_LISTED}", listed)
    return queued + running.rowcount


def retry(cx: sqlite3.Connection, job_ids: Sequence[str], rules: Rules, now: float) -> int:
    return change_where(cx, f"state IN ('failed', 'cancelled') AND {_LISTED}", (encode(job_ids),), rules.retry, now)


def hand_back(cx: sqlite3.Connection, worker_id: str, died: bool, rules: Rules, now: float) -> int:
    rule = rules.lose if died else rules.hand_back
    return change_where(cx, "state = 'running' AND worker = ?", (worker_id,), rule, now)


def append(cx: sqlite3.Connection, entries: Sequence[Entry], options: JobsOptions, now: float) -> frozenset[str]:
    """Number the events and write them; drop the oldest over the bound. Returns the ids whose lease is lost."""
    asked = encode([(entry.id, entry.attempt) for entry in entries])
    held = dict(
        read(
            cx,
            """SELECT json_group_array(json_array(id, seq)) FROM job WHERE state = 'running'
            AND (id, attempt) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))""",
            (asked,),
            list[tuple[str, int]],
        )
    )
    lines, lost = [], set()
    progress: dict[str, str | None] = {}
    for entry in entries:
        if entry.id not in held:
            lost.add(entry.id)
            continue
        for kind, data in entry.events:
            held[entry.id] += 1
            lines.append((entry.id, held[entry.id], entry.attempt, kind, data))
        progress[entry.id] = entry.progress or progress.get(entry.id)
    cx.execute(
        """INSERT INTO event (job, seq, attempt, type, data, at)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, ? FROM json_each(?)""",
        (now, encode(lines)),
    )
    cx.execute(
        """UPDATE job SET seq = value ->> 1, progress = coalesce(value ->> 2, progress)
        FROM json_each(?) WHERE job.id = value ->> 0""",
        (encode([(job_id, held[job_id], text) for job_id, text in progress.items()]),),
    )
    _trim(cx, [(job_id, held[job_id] - options.max_events) for job_id in progress if held[job_id] > options.max_events])
    return frozenset(lost)


def _trim(cx: sqlite3.Connection, bounds: Sequence[tuple[str, int]]) -> None:
    for job_id, last in bounds:
        cx.execute("DELETE FROM event WHERE job = ? AND seq <= ?", (job_id, last))


def beat(cx: sqlite3.Connection, worker_id: str, leases: Mapping[str, int], until: float) -> Beat:
    """Renew what is still held by exactly these attempts."""
    asked = encode(list(leases.items()))
    held = read(
        cx,
        """SELECT json_group_array(json_array(id, cancel)) FROM job WHERE state = 'running' AND worker = ?1
        AND (id, attempt) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?2))""",
        (worker_id, asked),
        list[tuple[str, int]],
    )
    renewed = encode([job_id for job_id, _ in held])
    cx.execute(f"UPDATE job SET lease_until = ? WHERE state = 'running' AND {_LISTED}", (until, renewed))
    return Beat(
        lost=frozenset(leases) - {job_id for job_id, _ in held},
        cancelled=frozenset(job_id for job_id, cancelled in held if cancelled),
    )


LEASE_LOST = "state = 'running' AND (lease_until <= ?1 OR lease_until > ?2)"
"""Too far ahead is lost too: the steady clock starts anew with the machine, and the lease is from before that."""
DEADLINE_MISSED = "state = 'queued' AND deadline <= ?"


def miss_deadlines(cx: sqlite3.Connection, rules: Rules, now: float) -> int:
    """Fail queued jobs that are past their deadline; returns how many."""
    return change_where(cx, f"{DEADLINE_MISSED} LIMIT {_BATCH}", (now,), rules.miss_deadline, now)


def expire(cx: sqlite3.Connection, options: JobsOptions, rules: Rules, now: float, steady: float) -> int:
    """One bounded round of tidying; returns how many jobs it touched."""
    bounds = (steady, steady + 2 * options.lease_s)
    changed = change_where(cx, f"{LEASE_LOST} LIMIT {_BATCH}", bounds, rules.lose, now)
    changed += miss_deadlines(cx, rules, now)
    changed += _forget(cx, now)
    changed += len(_drop_events(cx, "events_until", now))
    cx.execute("DELETE FROM measure WHERE slot < ?", (int((now - histogram.KEEP_S) // histogram.SLOT_S),))
    cx.execute(
        "DELETE FROM lane WHERE jobs = 0 AND tenant <> '' AND rank <= "
        "(SELECT rank FROM lane AS whole WHERE whole.priority = lane.priority AND whole.tenant = '')"
    )
    return changed


def _drop_events(cx: sqlite3.Connection, column: str, now: float) -> list[str]:
    """Drop the logs of the jobs whose time in that column has come; returns their ids."""
    found = f"SELECT json_group_array(id) FROM (SELECT id FROM job WHERE {column} <= ? LIMIT {_BATCH})"
    ids = read(cx, found, (now,), list[str])
    if ids:
        cx.execute("DELETE FROM event WHERE job IN (SELECT value FROM json_each(?))", (encode(ids),))
        cx.execute(f"UPDATE job SET events_until = NULL WHERE {_LISTED}", (encode(ids),))
    return ids


def _forget(cx: sqlite3.Connection, now: float) -> int:
    if ids := _drop_events(cx, "expires_at", now):
        cx.execute(f"DELETE FROM job WHERE {_LISTED}", (encode(ids),))
    return len(ids)


def is_tidy(cx: sqlite3.Connection, options: JobsOptions, now: float, steady: float) -> bool:
    """Whether `expire` would find nothing to do; asked on a reader, so that an idle queue is never written."""
    for condition, arguments in (
        (LEASE_LOST, (steady, steady + 2 * options.lease_s)),
        (DEADLINE_MISSED, (now,)),
        ("expires_at <= ?", (now,)),
        ("events_until <= ?", (now,)),
    ):
        if cx.execute(f"SELECT 1 FROM job WHERE {condition} LIMIT 1", arguments).fetchone():
            return False
    return True
