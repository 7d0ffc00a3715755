"""Reading rows: whole result sets come as one JSON text, because each row fetched singly costs a hand-over of the GIL.

A thread gives the GIL away at every step of a statement and, beside a busy event loop, waits up to the interpreter's
switch interval to get it back: a hundred rows would take a hundred times that.
"""
# ruff: noqa: S608 (statements are put together from our own constants; values are always bound)

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from penstock.jobs.records import JobFilter
from penstock.jobs.rules import Row
from penstock.types import Job, JobState

T = TypeVar("T")

JOB = """json_object(
    'id', id, 'kind', kind, 'tenant', tenant, 'priority', priority, 'state', state, 'payload', json(payload),
    'attempt', attempt, 'max_attempts', max_attempts, 'excused', excused, 'subject', subject, 'idempotency_key', key,
    'progress', json(progress), 'result', json(result), 'error', json(error), 'failures', json(failures),
    'worker', worker, 'cancel_requested', json(iif(cancel, 'true', 'false')), 'created_at', created_at,
    'run_at', run_at, 'deadline', deadline, 'started_at', started_at, 'finished_at', finished_at,
    'time_limit_s', time_limit_s, 'result_ttl_s', result_ttl_s)"""
_ROW = """json_array(id, state, priority, tenant, size_bytes, attempt, excused, max_attempts,
    json(iif(cancel, 'true', 'false')), json(failures), run_at, started_at, result_ttl_s, deadline)"""


_DEAD = frozenset({JobState.FAILED, JobState.CANCELLED})


def decode(text: str, kind: type[T]) -> T:
    return msgspec.json.decode(text, type=kind)


def encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def read(cx: sqlite3.Connection, statement: str, arguments: Sequence[Any], kind: type[T]) -> T:
    """Run a statement whose one row holds one JSON text."""
    text: str = cx.execute(statement, arguments).fetchone()[0]
    return decode(text, kind)


def jobs(cx: sqlite3.Connection, condition: str, arguments: Sequence[Any]) -> list[tuple[int, Job]]:
    """Jobs with their numbers of arrival."""
    statement = f"SELECT json_group_array(json_array(n, {JOB})) FROM (SELECT * FROM job WHERE {condition})"
    return read(cx, statement, arguments, list[tuple[int, Job]])


def rows(cx: sqlite3.Connection, condition: str, arguments: Sequence[Any]) -> list[Row]:
    """What the rules need to know of the jobs."""
    statement = f"SELECT json_group_array({_ROW}) FROM (SELECT * FROM job WHERE {condition})"
    return read(cx, statement, arguments, list[Row])


def condition(where: JobFilter) -> tuple[str, list[Any]]:
    """A filter as SQL. States are spelt out, so that the partial indexes can serve them."""
    terms, arguments = ["1"], []
    if len(where.states) == 1:
        terms.append(f"state = '{next(iter(where.states)).value}'")
    elif where.states:
        terms.append("state IN (" + ", ".join(f"'{state.value}'" for state in sorted(where.states)) + ")")
    if where.states and where.states <= _DEAD:
        terms.append("state IN ('failed', 'cancelled')")  # word for word the condition of the index job_dead
    for column, value in (("tenant", where.tenant), ("subject", where.subject)):
        if value is not None:
            terms.append(f"{column} = ?")
            arguments.append(value)
    for column, values in (("kind", where.kinds), ("priority", where.priorities)):
        if values:
            terms.append(f"{column} IN (SELECT value FROM json_each(?))")
            arguments.append(encode(sorted(values)))
    return " AND ".join(terms), arguments
