"""`penstock batches …`"""

import time
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.output import (
    FAILED,
    CollectionName,
    Json,
    Url,
    age,
    count,
    exit_codes,
    print_json,
    print_table,
    say,
)
from penstock.client import Client, NewFile
from penstock.client.batches import UNDER_WAY
from penstock.errors import InvalidInput
from penstock.types import Batch, BatchItemState, BatchState

app = typer.Typer(
    help="Add many documents at once: archives, URLs, a folder of the server.",
    no_args_is_help=True,
    add_completion=False,
)

BatchId = Annotated[str, typer.Argument(help="The batch's id (`penstock batches list`).")]
LOOK_S = 1.0
WITH_REASON = (BatchItemState.FAILED, BatchItemState.REFUSED, BatchItemState.CANCELLED)


@app.command()
def add(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Documents, and archives: zip, tar, tar.gz.")
    ] = None,
    urls: Annotated[list[str] | None, typer.Option("--from", help="A URL that the server fetches.")] = None,
    server_folder: Annotated[str | None, typer.Option(help="A folder of the server that its settings allow.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Of the folder, only files like this.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Of the folder, no files like this.")] = None,
    collection: CollectionName = "default",
    wait: Annotated[bool, typer.Option(help="Wait until all of it can be searched.")] = True,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Start a batch, and wait for what becomes of it."""
    with exit_codes(as_json=as_json), Client(url) as client:
        if bool(files) == bool(urls or server_folder):
            raise InvalidInput("Give files and archives, or --from and --server-folder; not both, and not nothing.")
        if files:
            for file in files:
                if not file.is_file():
                    raise InvalidInput(f"There is no file {file}. (For a folder of yours: `penstock ingest`.)")
            batch = client.upload_batch(
                [NewFile(name=file.name, content=file) for file in files], collection=collection
            )
        else:
            batch = client.start_batch(
                urls=urls or (),
                folder=server_folder,
                include=include or (),
                exclude=exclude or (),
                collection=collection,
            )
        _tell(client, batch, wait=wait, as_json=as_json)


@app.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Batches, newest first."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.list_batches(limit=limit).batches
        if as_json:
            print_json(found)
        else:
            rows = [[b.id, b.collection, b.state, b.items, counts(b), age(time.time() - b.created_at)] for b in found]
            print_table(["id", "collection", "state", "files", "counts", "age"], rows)


@app.command()
def show(
    batch_id: BatchId,
    wait: Annotated[bool, typer.Option(help="Wait until nothing of it is under way.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """One batch, and why files of it failed or were refused."""
    with exit_codes(as_json=as_json), Client(url) as client:
        _tell(client, client.get_batch(batch_id), wait=wait, as_json=as_json)


@app.command()
def items(
    batch_id: BatchId,
    state: Annotated[list[BatchItemState] | None, typer.Option(help="Only these.")] = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """What became of each file."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = list(client.iter_batch_items(batch_id, states=state or ()))
        if as_json:
            print_json(found)
        else:
            rows = [[i.name, i.state, i.document_id, i.error.message if i.error else ""] for i in found]
            print_table(["name", "state", "document", "why"], rows)


@app.command()
def cancel(batch_id: BatchId, url: Url = "", as_json: Json = False) -> None:
    """Cancel all that is unfinished; what is searchable stays."""
    with exit_codes(as_json=as_json), Client(url) as client:
        batch = client.cancel_batch(batch_id)
        print_json(batch) if as_json else say(f"Cancelled {batch.id}: {counts(batch)}.")


@app.command()
def retry(batch_id: BatchId, url: Url = "", as_json: Json = False) -> None:
    """Try again what failed or was cancelled."""
    with exit_codes(as_json=as_json), Client(url) as client:
        changed = client.retry_batch(batch_id)
        if as_json:
            print_json(changed)
            return
        gathering = " The rest of it is gathered again." if changed.gathering else ""
        say(f"Ingesting {count(changed.documents, 'document')} again.{gathering}")


def _tell(client: Client, batch: Batch, *, wait: bool, as_json: bool) -> None:
    """What stands of the batch now, or in the end. A batch that was not wholly good is exit status 1."""
    while wait and batch.state in UNDER_WAY:
        time.sleep(LOOK_S)
        batch = client.get_batch(batch.id)
    failed = list(client.iter_batch_items(batch.id, states=WITH_REASON))
    for item in failed:
        why = f"{item.error.message} [{item.error.code}]" if item.error else "It was cancelled."
        say(f"{item.state}: {item.name}: {why}")
    if batch.error:
        say(f"{batch.state}: {batch.error.message} [{batch.error.code}]")
    if as_json:
        print_json({"batch": batch, "failures": failed})
    else:
        typer.echo(f"{batch.id}\t{batch.state}\t{count(batch.items, 'file')}: {counts(batch) or 'none'}")
    if wait and (failed or batch.state is not BatchState.DONE):
        raise typer.Exit(FAILED)


def counts(batch: Batch) -> str:
    """How many of its files are in which state."""
    parts = [f"{number:,} {state}" for state, number in sorted(batch.counts.items())]
    return ", ".join([*parts, *([f"{batch.unchanged:,} unchanged"] if batch.unchanged else [])])
