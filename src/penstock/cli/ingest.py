"""`penstock ingest`"""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from penstock.cli.files import find_files
from penstock.cli.ingestion import UPLOADS_AT_ONCE, Ingestion, Report, State
from penstock.cli.output import FAILED, INTERRUPTED, CollectionName, Json, Url, count, exit_codes, print_json, say
from penstock.cli.watching import FolderWatch, Round, WatchOptions, state_file
from penstock.client import AsyncClient, Client, ClientOptions, NewFile
from penstock.errors import InvalidInput, NotFound, PenstockError
from penstock.types import DocumentStatus

CANCELS_AT_ONCE = 16


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files, and folders with all that is in them.")],
    collection: CollectionName = "default",
    include: Annotated[list[str] | None, typer.Option(help="Only files like this, such as '*.pdf'.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files like this.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the documents can be searched.")] = True,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Uploads at once.")] = UPLOADS_AT_ONCE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep a folder and the collection the same, until stopped.")
    ] = False,
    delete_missing: Annotated[
        bool, typer.Option("--delete-missing", help="With --watch: what leaves the folder leaves the collection.")
    ] = False,
    state: Annotated[Path | None, typer.Option(help="With --watch: the file that remembers what was uploaded.")] = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Upload files and folders, and wait until they can be searched.

    A file that was ingested before and has not changed is recognised and costs nothing. A changed one replaces it.
    With --watch, a folder is followed: stop with Ctrl-C, start again at any time.
    """
    with exit_codes(as_json=as_json):
        if watch:
            _watch(
                paths, collection, url, include or (), exclude or (), state, concurrency, delete_missing=delete_missing
            )
            return
        files = find_files(paths, include or (), exclude or ())
        if not files:
            raise InvalidInput("There is no file to ingest there (hidden ones are left out).")
        report = _run(files, collection, url, concurrency, wait=wait)
    if report is None:
        say(f"Uploaded {count(len(files), 'file')}; see `penstock documents list` for what becomes of them.")
        return
    for failure in report.failures:
        say(f"failed: {failure.name}: {failure.message} [{failure.code}]")
    print_json(_summary(report)) if as_json else typer.echo(_line(report))
    if report.failed:
        raise typer.Exit(FAILED)


class Picture:
    """How far it is: bars on a terminal, nothing elsewhere."""

    def __init__(self, live: Live | None = None) -> None:
        self._live = live
        self._bars = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        self._uploaded = self._bars.add_task("uploaded")
        self._finished = self._bars.add_task("finished")

    def show(self, state: State) -> None:
        if self._live is None:
            return
        self._bars.update(self._uploaded, total=state.total, completed=state.uploaded)
        self._bars.update(self._finished, total=state.total, completed=state.finished)
        stages = [f"{stage} {number}" for stage, number in state.stages.items()]
        failed = [f"failed {state.failed}"] if state.failed else []
        self._live.update(Group(self._bars, Text("      now  " + " · ".join([*stages, *failed]))))


@contextmanager
def _picture() -> Iterator[Picture]:
    if not sys.stderr.isatty():
        yield Picture()
        return
    with Live(console=Console(stderr=True), refresh_per_second=8, transient=True) as live:
        yield Picture(live)


def _watch(
    paths: list[Path],
    collection: str,
    url: str,
    include: Sequence[str],
    exclude: Sequence[str],
    state: Path | None,
    concurrency: int,
    *,
    delete_missing: bool,
) -> None:
    """Until SIGINT or SIGTERM; what is being uploaded then is finished. A second one ends it at once."""
    if len(paths) != 1 or not paths[0].is_dir():
        raise InvalidInput("--watch follows one folder.")
    client_options = _patient(url)
    options = WatchOptions(
        folder=paths[0],
        collection=collection,
        state=state or state_file(client_options.url, collection, paths[0]),
        include=include,
        exclude=exclude,
        delete_missing=delete_missing,
        uploads_at_once=concurrency,
    )
    with Client(url) as client:
        client.ready()

    async def run() -> None:
        async with AsyncClient(options=client_options) as client:
            following = FolderWatch(client, options, _tell_round)
            loop = asyncio.get_running_loop()

            def stop() -> None:
                following.stop()
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(number)

            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop)
            say(f"Watching {options.folder} for {collection!r}; Ctrl-C ends it.")
            await following.run()
            say("Stopped. Start it again to go on.")

    asyncio.run(run())


def _tell_round(told: Round | PenstockError) -> None:
    if isinstance(told, PenstockError):
        say(f"Error: {told.message} Trying again.")
        return
    for unfit in told.refused:
        say(f"refused: {unfit.name}: {unfit.message} [{unfit.code}]")
    parts = [f"{told.uploaded:,} uploaded"] if told.uploaded else []
    parts += [f"{told.unchanged:,} unchanged"] if told.unchanged else []
    parts += [f"{told.deleted:,} deleted"] if told.deleted else []
    if parts:
        say(f"{time.strftime('%H:%M:%S')} {', '.join(parts)}")


def _run(files: list[NewFile], collection: str, url: str, concurrency: int, *, wait: bool) -> Report | None:
    """None when nobody waits for what becomes of the uploads."""
    with Client(url) as client:  # a server that is not there is known at once, without many attempts
        client.ready()
    started: list[Ingestion] = []

    async def run(picture: Picture) -> Report | None:
        async with AsyncClient(options=_patient(url)) as client:
            started.append(Ingestion(client, collection, picture.show, uploads_at_once=concurrency))
            if wait:
                return await started[0].run(files)
            await started[0].upload(files)
            return None

    try:
        with _picture() as picture:
            return asyncio.run(run(picture))
    except KeyboardInterrupt:
        accepted = sum(one.created for ingestion in started for one in ingestion.accepted.values())
        _interrupted(accepted, {file.name for file in files}, collection, url)
        raise typer.Exit(INTERRUPTED) from None


def _patient(url: str) -> ClientOptions:
    """A restart of the server is waited for, and, as long as it takes, a queue that is full."""
    return ClientOptions(url=url, attempts=8, refused_attempts=1000, max_pause_s=60.0)


def _interrupted(accepted: int, names: Set[str], collection: str, url: str) -> None:
    """What was accepted goes on without us, unless the person at the terminal wants it cancelled."""
    say(f"Interrupted. The server has accepted {count(accepted, 'document')} and goes on without you.")
    if sys.stdin.isatty() and typer.confirm("Cancel those that are not done yet?", err=True):
        say(f"Cancelled {asyncio.run(_cancel(names, collection, url)):,}.")
    else:
        say("See `penstock documents list --status pending`; stop all with `penstock jobs cancel --all --kind ingest`.")


async def _cancel(names: Set[str], collection: str, url: str) -> int:
    """Cancels what is pending under these names (also what was accepted after we left); returns how many that were."""
    async with AsyncClient(url) as client:
        listed = client.iter_documents(collection=collection, statuses=[DocumentStatus.PENDING])
        pending = [document async for document in listed if document.name in names]
        todo = iter(pending)

        async def some() -> None:
            for document in todo:
                with suppress(NotFound):  # done long ago
                    await client.cancel_job(document.job_id)

        async with asyncio.TaskGroup() as group:
            for _ in range(CANCELS_AT_ONCE):
                group.create_task(some())
    return len(pending)


def _line(report: Report) -> str:
    parts = [f"{report.done:,} done"]
    parts += [f"{report.failed:,} failed"] if report.failed else []
    parts += [f"{report.unchanged:,} unchanged"] if report.unchanged else []
    total = report.done + report.failed + report.unchanged
    rate = f", {report.documents_per_s:.1f} documents/s" if report.done else ""
    return f"{count(total, 'document')}: {', '.join(parts)}; {report.chunks:,} chunks in {report.seconds:.1f} s{rate}"


def _summary(report: Report) -> dict[str, object]:
    return {
        "documents": report.done + report.failed + report.unchanged,
        "done": report.done,
        "failed": report.failed,
        "unchanged": report.unchanged,
        "chunks": report.chunks,
        "seconds": round(report.seconds, 3),
        "documents_per_s": round(report.documents_per_s, 3),
        "failures": report.failures,
    }
