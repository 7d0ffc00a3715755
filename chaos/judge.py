"""What became of the jobs that were accepted: lost, doubled, stuck, and how soon the interrupted ones ran again."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chaos.tally import Tally
from penstock.errors import NotFound, Unavailable
from penstock.jobs import JobStore
from penstock.types import Job, JobEvent, JobState

SUCCEEDED = frozenset({JobState.SUCCEEDED})
ENDED = frozenset({JobState.SUCCEEDED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Effect:
    """A line of the effects file of test jobs."""

    job: str
    attempt: int
    step: str
    at: float
    pid: int


def read_effects(file: Path) -> list[Effect]:
    found = []
    whole, _, _ = file.read_text(encoding="ascii").rpartition("\n")  # the last line may just be being written
    for line in whole.splitlines():
        job, attempt, step, at, pid = line.split()
        found.append(Effect(job, int(attempt), step, float(at), int(pid)))
    return found


async def judge_jobs(
    tally: Tally,
    store: JobStore,
    job_ids: Collection[str],
    *,
    within_s: float,
    states: frozenset[JobState] = SUCCEEDED,
) -> list[Job]:
    """Waits for the ends and counts what is wrong with them. Each job must have come to one end, once."""
    until = time.monotonic() + within_s
    jobs = []
    for job_id in job_ids:
        job = await _end(store, job_id, until)
        if job is None:
            tally.lost += 1
            tally.notes.append(f"job {job_id} is gone")
            continue
        jobs.append(job)
        if not job.state.final:
            tally.stuck += 1
            tally.notes.append(f"job {job_id} ({job.kind}) is still {job.state} after attempt {job.attempt}")
            continue
        if job.state not in states:
            tally.lost += 1
            tally.notes.append(f"job {job_id} ({job.kind}) ended {job.state}: {job.error}")
        ends = [event for event in await store.events(job_id, limit=10_000) if _is_end(event)]
        if len(ends) != 1:
            tally.doubled += 1
            tally.notes.append(f"job {job_id} ({job.kind}) came to {len(ends)} ends")
    tally.runs += len(job_ids)
    return jobs


async def _end(store: JobStore, job_id: str, until: float) -> Job | None:
    while True:
        try:
            return await store.wait(job_id, timeout_s=max(0.0, until - time.monotonic()))
        except NotFound:
            return None
        except Unavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


def _is_end(event: JobEvent) -> bool:
    return event.type == "state" and JobState(event.data["state"]).final


def judge_effects(
    tally: Tally,
    effects: Sequence[Effect],
    jobs: Sequence[Job],
    killed: Mapping[int, float],
    outages: Sequence[tuple[float, float]] = (),
) -> None:
    """Two attempts of a job never ran side by side in living processes, and none began after the job's end.

    `killed` gives the moment of death by process. Frozen processes are not for this judge. `outages`, from when to when
    the job store was away, are no part of a recovery.
    """
    by_job = defaultdict(list)
    for effect in effects:
        by_job[effect.job].append(effect)
    for job in jobs:
        attempts = {effect.attempt: effect for effect in by_job[job.id] if effect.step == "begun"}
        ended = {effect.attempt: effect.at for effect in by_job[job.id] if effect.step == "done"}
        begun = Counter(effect.attempt for effect in by_job[job.id] if effect.step == "begun")
        again = any(times > 1 for times in begun.values()) or (ended and min(ended) != max(attempts))
        if again and not any(attempts[attempt].pid in killed for attempt in ended):
            tally.doubled += 1
            tally.notes.append(f"job {job.id} ({job.kind}) took effect again: {by_job[job.id]}")
        for attempt, effect in attempts.items():
            after, died_at = attempts.get(attempt + 1), killed.get(effect.pid)
            if after is None or died_at is None or attempt in ended:
                continue
            if after.at < died_at:  # the next attempt began while this one's process lived
                tally.doubled += 1
                tally.notes.append(f"job {job.id} ({job.kind}) ran twice at once: {by_job[job.id]}")
            else:
                away_s = sum(max(0.0, min(after.at, end) - max(died_at, start)) for start, end in outages)
                tally.recoveries_s.append(after.at - died_at - away_s)


async def serve_recoveries(store: JobStore, job_ids: Collection[str], deaths: Sequence[float]) -> list[float]:
    """From the death of the one worker to the moment that each job which it took down with it runs again."""
    found = []
    for job_id in job_ids:
        waiting = False
        for event in await store.events(job_id, limit=10_000):
            if event.type != "state":
                continue
            before = [death for death in deaths if death <= event.at]
            if event.data["state"] == "running" and waiting and before:
                found.append(event.at - before[-1])
            waiting = event.data.get("code") == "worker_died"
    return found
