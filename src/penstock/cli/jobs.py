"""`penstock jobs …`"""

import time
from typing import Annotated

import typer

from penstock.cli.output import INTERRUPTED, Json, Url, age, count, exit_codes, print_json, print_table, say
from penstock.client import Client
from penstock.types import Job, JobState, Priority

app = typer.Typer(help="List, follow, cancel and retry jobs.", no_args_is_help=True, add_completion=False)

JobIds = Annotated[list[str] | None, typer.Argument(metavar="[JOB_ID…]", help="The jobs' ids.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
States = Annotated[list[JobState] | None, typer.Option("--state", help="Only these.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only these: ingest, search, question, reindex.")]
All = Annotated[bool, typer.Option("--all", help="All that match --state and --kind.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list")
def list_jobs(
    state: States = None,
    kind: Kinds = None,
    priority: Annotated[list[Priority] | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Jobs, newest first. The failed ones are the dead letters: `--state failed`."""
    with exit_codes(as_json=as_json), Client(url) as client:
        page = client.list_jobs(states=state or (), kinds=kind or (), priorities=priority or (), limit=limit)
        if as_json:
            print_json(page.jobs)
        else:
            print_table(
                ["id", "kind", "class", "state", "attempt", "progress", "age", "why"],
                [
                    [
                        job.id,
                        job.kind,
                        job.priority,
                        job.state,
                        f"{job.attempt}/{job.max_attempts}",
                        _progress(job),
                        age(time.time() - job.created_at),
                        job.error.message if job.error else "",
                    ]
                    for job in page.jobs
                ],
            )


@app.command()
def show(job_id: JobId, url: Url = "", as_json: Json = False) -> None:
    """One job, with every attempt that failed."""
    with exit_codes(as_json=as_json), Client(url) as client:
        job = client.get_job(job_id)
        if as_json:
            print_json(job)
            return
        rows = [
            ["id", job.id],
            ["kind", job.kind],
            ["class", job.priority],
            ["state", job.state],
            ["attempt", f"{job.attempt} of {job.max_attempts}"],
            ["progress", _progress(job)],
            ["subject", job.subject or ""],
            ["worker", job.worker or ""],
            ["made", f"{age(time.time() - job.created_at)} ago"],
        ]
        failures = [[f"attempt {failure.attempt}", f"{failure.code}: {failure.message}"] for failure in job.failures]
        print_table(["", ""], [row for row in rows if row[1]] + failures)


@app.command()
def events(
    job_id: JobId,
    after: Annotated[int, typer.Option(min=0, help="Only events behind this number.")] = 0,
    url: Url = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Follow a job to its end."""
    with exit_codes(as_json=as_json), Client(url) as client:
        for event in client.job_events(job_id, after=after):
            if as_json:
                print_json(event)
            else:
                told = " ".join(f"{name}={value}" for name, value in event.data.items())
                typer.echo(f"{event.seq}\t{event.type}\t{told}")


@app.command()
def cancel(
    job_ids: JobIds = None,
    every: All = False,
    state: States = None,
    kind: Kinds = None,
    yes: Yes = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Cancel jobs: some by id, or all that match."""
    _change("cancel", job_ids or [], every, state or [], kind or [], yes, url, as_json)


@app.command()
def retry(
    job_ids: JobIds = None,
    every: All = False,
    state: States = None,
    kind: Kinds = None,
    yes: Yes = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Give failed or cancelled jobs new attempts: some by id, or all failed ones that match."""
    _change("retry", job_ids or [], every, state or [], kind or [], yes, url, as_json)


def _change(
    verb: str,
    job_ids: list[str],
    every: bool,
    states: list[JobState],
    kinds: list[str],
    yes: bool,
    url: str,
    as_json: bool,
) -> None:
    if bool(job_ids) == every:
        raise typer.BadParameter("Name jobs by id, or give --all.")
    with exit_codes(as_json=as_json), Client(url) as client:
        if job_ids:
            one = client.cancel_job if verb == "cancel" else client.retry_job
            jobs = [one(job_id) for job_id in job_ids]
            print_json(jobs) if as_json else print_table(["id", "state"], [[job.id, job.state] for job in jobs])
            return
        many = client.cancel_jobs if verb == "cancel" else client.retry_jobs
        matched = many(states=states, kinds=kinds, dry_run=True).matched
        if matched and not yes and not typer.confirm(f"{verb.capitalize()} {count(matched, 'job')}?", err=True):
            raise typer.Exit(INTERRUPTED)
        changed = many(states=states, kinds=kinds)
        print_json(changed) if as_json else say(f"{changed.changed} of {count(matched, 'job')}: {verb} was done.")


def _progress(job: Job) -> str:
    progress = job.progress
    if progress is None or job.state is JobState.SUCCEEDED:
        return ""
    return f"{progress.stage} {progress.done}/{progress.total}" if progress.total else progress.stage
