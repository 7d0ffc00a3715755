"""What was measured: times of ended jobs as histograms by slots of time, the drain rate, the health of the classes."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from penstock.jobs import histogram
from penstock.jobs.records import QueueStats
from penstock.jobs.rules import Change, Row
from penstock.jobs.sqlite.rows import encode, read
from penstock.types import JobState, Priority

_SAVE = """INSERT INTO measure (priority, slot, name, bucket, count)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true
    ON CONFLICT DO UPDATE SET count = count + excluded.count"""
_DRAINED = "SELECT coalesce(sum(count), 0) FROM measure WHERE priority = ? AND slot > ? AND name = 'run'"
_COUNTS = """SELECT json_group_array(json_array(priority, name, value)) FROM (
    SELECT priority, 'ready' AS name, count(*) AS value
        FROM job WHERE state = 'queued' AND due IS NULL GROUP BY priority
    UNION ALL SELECT priority, 'oldest', min(run_at) FROM job WHERE state = 'queued' AND due IS NULL GROUP BY priority
    UNION ALL SELECT priority, 'delayed', count(*) FROM job WHERE state = 'queued' AND due IS NOT NULL GROUP BY priority
    UNION ALL SELECT priority, 'running', count(*) FROM job WHERE state = 'running' GROUP BY priority
    UNION ALL SELECT priority, 'dead', count(*) FROM job INDEXED BY job_dead
        WHERE state IN ('failed', 'cancelled') AND state = 'failed' GROUP BY priority)"""
_TIMES = "SELECT json_group_array(json_array(priority, name, bucket, count)) FROM measure WHERE slot > ?"


def save(cx: sqlite3.Connection, ended: Sequence[tuple[Row, Change]], now: float) -> None:
    """Count the wait and run times of jobs that ended after they were started."""
    counts: Counter[tuple[str, int, str, int]] = Counter()
    slot = int(now // histogram.SLOT_S)
    for row, change in ended:
        if change.finished_at is None or row.started_at is None or row.state is not JobState.RUNNING:
            continue
        counts[row.priority, slot, "wait", histogram.bucket(row.started_at - row.run_at)] += 1
        counts[row.priority, slot, "run", histogram.bucket(now - row.started_at)] += 1
    if counts:
        cx.execute(_SAVE, (encode([(*name, count) for name, count in counts.items()]),))


def drain_per_s(cx: sqlite3.Connection, priority: str, now: float) -> float:
    """Jobs of the class that ended in a second, over the last minute."""
    since = int((now - histogram.DRAIN_S) // histogram.SLOT_S)
    drained: int = cx.execute(_DRAINED, (priority, since)).fetchone()[0]
    return drained / histogram.DRAIN_S


def stats(cx: sqlite3.Connection, now: float) -> list[QueueStats]:
    """The health of each class, interactive first."""
    found: dict[tuple[str, str], float] = {
        (priority, name): value for priority, name, value in read(cx, _COUNTS, (), list[tuple[str, str, float]])
    }
    since = int((now - histogram.KEEP_S) // histogram.SLOT_S)
    times: dict[tuple[str, str], Counter[int]] = {}
    for priority, name, bucket, count in read(cx, _TIMES, (since,), list[tuple[str, str, int, int]]):
        times.setdefault((priority, name), Counter())[bucket] += count
    return [
        QueueStats(
            priority=priority,
            ready=int(found.get((priority, "ready"), 0)),
            running=int(found.get((priority, "running"), 0)),
            delayed=int(found.get((priority, "delayed"), 0)),
            dead=int(found.get((priority, "dead"), 0)),
            oldest_ready_age_s=max(0.0, now - found.get((priority, "oldest"), now)),
            drain_per_s=drain_per_s(cx, priority, now),
            wait_s=histogram.percentiles(times.get((priority, "wait"), {})),
            run_s=histogram.percentiles(times.get((priority, "run"), {})),
        )
        for priority in Priority
    ]
