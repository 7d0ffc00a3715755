"""`penstock documents …`"""

import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from penstock.cli.output import (
    CollectionName,
    Json,
    Url,
    age,
    count,
    exit_codes,
    one_line,
    print_json,
    print_table,
    say,
    size,
)
from penstock.client import Client
from penstock.errors import InvalidInput
from penstock.types import JSON, Document, DocumentStatus

app = typer.Typer(help="List, show and delete documents.", no_args_is_help=True, add_completion=False)

DocumentId = Annotated[str, typer.Argument(help="The document's id (`penstock documents list`).")]


@app.command("list")
def list_documents(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this one.")] = None,
    status: Annotated[list[DocumentStatus] | None, typer.Option(help="Only these.")] = None,
    name: Annotated[str | None, typer.Option(help="Exactly this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Documents, newest first, with what became of them."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found: list[Document] = []
        for document in client.iter_documents(
            collection=collection, statuses=status or (), name=name, page_size=min(limit, 1000)
        ):
            found.append(document)
            if len(found) == limit:
                break
        if as_json:
            print_json(found)
        else:
            _print_documents(found)
            if len(found) == limit:
                say(f"The newest {limit}; there may be more (--limit).")


@app.command()
def show(document_id: DocumentId, url: Url = "", as_json: Json = False) -> None:
    """One document."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.get_document(document_id)
        if as_json:
            print_json(found)
            return
        error = f"{found.error.code}: {found.error.message}" if found.error else ""
        rows: list[list[object]] = [
            ["id", found.id],
            ["name", found.name],
            ["collection", found.collection],
            ["status", found.status],
            ["progress", _progress(found)],
            ["error", error],
            ["notes", " ".join(found.notes)],
            ["version", f"{found.version} (searchable: {found.searchable_version or 'none'})"],
            ["type", found.media_type],
            ["size", size(found.size_bytes)],
            ["pages", found.pages or ""],
            ["chunks", found.chunks],
            ["sha256", found.sha256],
            ["job", found.job_id],
        ]
        print_table(["", ""], [row for row in rows if row[1] != ""])


@app.command()
def chunks(document_id: DocumentId, url: Url = "", as_json: Json = False) -> None:
    """The passages of a document, in order."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = list(client.iter_chunks(document_id))
        if as_json:
            print_json(found)
        else:
            print_table(
                ["position", "page", "heading", "tokens", "text"],
                [[c.position, c.page, " › ".join(c.headings), c.tokens, one_line(c.text)] for c in found],
            )


@app.command()
def delete(
    document_ids: Annotated[
        list[str] | None, typer.Argument(metavar="DOCUMENT_ID…", help="The documents' ids; or none, with --where.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="""All whose metadata pass a filter, such as '{"year": {"lt": 2020}}'.""")
    ] = None,
    status: Annotated[list[DocumentStatus] | None, typer.Option(help="All of the collection in this status.")] = None,
    collection: CollectionName = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Delete documents, by id or by what they are. From now on they are not found any more."""
    with exit_codes(as_json=as_json), Client(url) as client:
        if bool(document_ids) == bool(where or status):
            raise InvalidInput("Give the ids of documents, or --where and --status.")
        if not document_ids:
            _delete_matching(client, collection, _filter(where), status or (), yes=yes, as_json=as_json)
            return
        deleted = [client.delete_document(document_id) for document_id in document_ids]
        if as_json:
            print_json(deleted)
        else:
            for document in deleted:
                say(f"Deleted {document.name} ({document.id}).")


def _filter(text: str | None) -> JSON:
    try:
        return msgspec.json.decode(text) if text is not None else None
    except msgspec.DecodeError as exc:
        raise InvalidInput(f"--where is not valid JSON: {exc}") from exc


def _delete_matching(
    client: Client, collection: str, where: JSON, statuses: Sequence[DocumentStatus], *, yes: bool, as_json: bool
) -> None:
    if not yes:
        found = client.delete_documents(collection=collection, filter=where, statuses=statuses, dry_run=True)
        typer.confirm(f"Delete {count(found.matched, 'document')} of {collection!r}?", abort=True, err=True)
    done = client.delete_documents(collection=collection, filter=where, statuses=statuses)
    print_json(done) if as_json else say(f"Deleted {count(done.deleted, 'document')}.")


def _print_documents(documents: Sequence[Document]) -> None:
    print_table(
        ["id", "name", "collection", "status", "pages", "chunks", "size", "age", "why"],
        [
            [
                document.id,
                document.name,
                document.collection,
                document.status,
                document.pages or "",
                document.chunks,
                size(document.size_bytes),
                age(time.time() - document.created_at),
                document.error.message if document.error else _progress(document),
            ]
            for document in documents
        ],
    )


def _progress(document: Document) -> str:
    progress = document.progress
    if progress is None:
        return ""
    return f"{progress.stage} {progress.done}/{progress.total}" if progress.total else progress.stage
