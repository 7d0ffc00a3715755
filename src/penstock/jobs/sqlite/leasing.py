"""Lease: which ready jobs go next, and taking them."""
# ruff: noqa: S608 (statements are put together from our own constants; values are always bound)

import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from penstock.jobs.options import JobsOptions
from penstock.jobs.rules import Rules
from penstock.jobs.sqlite.operations import miss_deadlines
from penstock.jobs.sqlite.rows import encode, jobs, read
from penstock.jobs.sqlite.submit import WHOLE_CLASS, Lane, save_lanes
from penstock.types import Job, Priority

_PROMOTE = "UPDATE job SET due = NULL WHERE state = 'queued' AND due <= ?"
_HEAD = """SELECT n, priority, alone, rank, run_at FROM (SELECT n, priority, alone, rank, run_at FROM job
    INDEXED BY job_ready WHERE state = 'queued' AND due IS NULL
    AND priority = '{priority}' AND kind = ? AND alone = {alone}
    AND (deadline IS NULL OR deadline > ?) {unless} ORDER BY rank, run_at LIMIT ?)"""
_BUSY_ALONE = "AND NOT EXISTS (SELECT 1 FROM job WHERE state = 'running' AND worker = ? AND alone = 1)"
_TAKE = """UPDATE job SET state = 'running', attempt = attempt + 1, worker = ?, lease_until = ?, started_at = ?,
    finished_at = NULL, seq = seq + 1 WHERE n IN (SELECT value FROM json_each(?))"""
_TELL = """INSERT INTO event (job, seq, attempt, type, data, at)
    SELECT id, seq, attempt, 'state', '{"state":"running"}', ? FROM job WHERE n IN (SELECT value FROM json_each(?))"""


_CLASSES = {priority: place for place, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker has room for. `phase` in [0, aged_every): which of its leases go to an aged class."""

    worker: str
    kinds: Sequence[str]
    n: int
    background: int
    phase: int


class Head(msgspec.Struct, frozen=True, array_like=True):
    """A ready job near the head of its queue."""

    n: int
    priority: Priority
    alone: bool
    rank: float
    run_at: float


def lease(cx: sqlite3.Connection, ask: Ask, options: JobsOptions, rules: Rules, now: float, until: float) -> list[Job]:
    """Take the jobs; `until` is when the lease ends by the steady clock."""
    cx.execute(_PROMOTE, (now,))
    miss_deadlines(cx, rules, now)
    chosen = pick(_heads(cx, ask, now), ask, options, now)
    if not chosen:
        return []
    numbers = encode([head.n for head in chosen])
    cx.execute(_TAKE, (ask.worker, until, now, numbers))
    cx.execute(_TELL, (now, numbers))
    save_lanes(cx, {(head.priority.value, WHOLE_CLASS): Lane(rank=head.rank) for head in sorted(chosen, key=_order)})
    taken = dict(jobs(cx, "n IN (SELECT value FROM json_each(?))", (numbers,)))
    return [taken[head.n] for head in chosen]


def _heads(cx: sqlite3.Connection, ask: Ask, now: float) -> list[Head]:
    """The first jobs of every queue the worker may take from: enough of each to fill its room from that one alone."""
    statements, arguments = [], list[str | float]()
    for priority in Priority:
        room = ask.n if priority is Priority.INTERACTIVE else min(ask.n, ask.background)
        if not room:
            continue
        for kind in ask.kinds:
            statements.append(_HEAD.format(priority=priority.value, alone=0, unless=""))
            arguments += [kind, now, room]
            statements.append(_HEAD.format(priority=priority.value, alone=1, unless=_BUSY_ALONE))
            arguments += [kind, now, ask.worker, 1]
    union = " UNION ALL ".join(statements)
    text = f"SELECT json_group_array(json_array(n, priority, json(iif(alone, 'true', 'false')), rank, run_at)) FROM ({union})"  # noqa: E501
    return read(cx, text, arguments, list[Head])


def pick(heads: Sequence[Head], ask: Ask, options: JobsOptions, now: float) -> list[Head]:
    """Strictly by class and rank, but for every `aged_every`th lease, which goes to a lower class that has aged.

    At most one job is taken that has to run alone among its like.
    """
    queues: dict[Priority, deque[Head]] = {priority: deque() for priority in Priority}
    alone = 0
    for head in sorted(heads, key=_order):
        alone += head.alone
        if not head.alone or alone == 1:
            queues[head.priority].append(head)
    chosen: list[Head] = []
    background = ask.background
    while len(chosen) < ask.n:
        waiting = [each for each in Priority if queues[each] and (each is Priority.INTERACTIVE or background > 0)]
        if not waiting:
            break
        turn = waiting[0]
        aged = [each for each in waiting[1:] if now - queues[each][0].run_at >= options.aged_after_s]
        if aged and (len(chosen) + ask.phase) % options.aged_every == 0:
            turn = min(aged, key=lambda each: queues[each][0].run_at)
        background -= turn is not Priority.INTERACTIVE
        chosen.append(queues[turn].popleft())
    return chosen


def _order(head: Head) -> tuple[int, float, float, int]:
    return _CLASSES[head.priority], head.rank, head.run_at, head.n
