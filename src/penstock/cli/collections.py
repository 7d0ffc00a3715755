"""`penstock collections …`"""

import time
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.batches import counts
from penstock.cli.output import FAILED, Json, Url, age, exit_codes, print_json, print_table, say, size
from penstock.client import Client
from penstock.errors import InvalidInput
from penstock.types import Batch, BatchItemState, BatchState, Collection, CollectionOptions

app = typer.Typer(
    help="List, make, show, copy, move and delete collections.", no_args_is_help=True, add_completion=False
)

Name = Annotated[str, typer.Argument(help="The collection's name.")]
ImageModel = Annotated[
    str | None, typer.Option(help="Image embedder (CLIP), by its name in the settings: pictures are found too.")
]
NewName = Annotated[str, typer.Argument(help="The new collection's name.")]


@app.command("list")
def list_collections(url: Url = "", as_json: Json = False) -> None:
    """All collections with what is searchable in them."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.list_collections()
        if as_json:
            print_json(found)
        else:
            print_table(
                ["name", "documents", "chunks", "model", "age"],
                [[c.name, c.documents, c.chunks, c.options.embedding_model, _age(c)] for c in found],
            )


@app.command()
def create(
    name: Name,
    chunk_tokens: Annotated[int, typer.Option(help="Most tokens a chunk.")] = CollectionOptions().chunk_tokens,
    chunk_overlap: Annotated[int, typer.Option(help="Tokens that two neighbours share.")] = (
        CollectionOptions().chunk_overlap
    ),
    model: Annotated[str, typer.Option(help="Embedding model, by its name in the settings.")] = "default",
    image_model: ImageModel = None,
    captions: Annotated[bool, typer.Option("--captions", help="Have the vision model describe pictures.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a collection."""
    options = CollectionOptions(
        embedding_model=model,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        image_model=image_model,
        captions=captions,
    )
    with exit_codes(as_json=as_json), Client(url) as client:
        made = client.create_collection(name, options)
        print_json(made) if as_json else say(f"Made the collection {made.name!r}.")


@app.command()
def show(name: Name, url: Url = "", as_json: Json = False) -> None:
    """One collection."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.get_collection(name)
        if as_json:
            print_json(found)
        else:
            print_table(
                ["", ""],
                [
                    ["name", found.name],
                    ["documents", found.documents],
                    ["chunks", found.chunks],
                    ["version", found.version],
                    ["embedding model", found.options.embedding_model],
                    ["image model", found.options.image_model or ""],
                    ["captions", "yes" if found.options.captions else "no"],
                    ["chunker", found.options.chunker],
                    ["chunk tokens", found.options.chunk_tokens],
                    ["chunk overlap", found.options.chunk_overlap],
                    ["reranker", found.options.reranker or ""],
                    ["made", f"{_age(found)} ago"],
                ],
            )


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Delete a collection with all its documents."""
    with exit_codes(as_json=as_json), Client(url) as client:
        found = client.get_collection(name)
        if not yes:
            typer.confirm(f"Delete {name!r} with {found.documents} documents?", abort=True, err=True)
        client.delete_collection(name)
        print_json(found) if as_json else say(f"Deleted the collection {name!r}.")


@app.command()
def copy(
    name: Name,
    new_name: NewName,
    image_model: ImageModel = None,
    captions: Annotated[bool | None, typer.Option(help="Have the vision model describe pictures.")] = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a new collection with the same documents, and the same options where none are given."""
    with exit_codes(as_json=as_json), Client(url) as client:
        batch = client.copy_collection(name, new_name, image_model=image_model, captions=captions)
        _wait(client, batch, as_json=as_json)


@app.command("export")
def export_collection(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The file to write: a tar.")],
    chunks: Annotated[bool, typer.Option(help="With the searchable passages, for other tools.")] = True,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Write a collection to a file, with its documents' bytes."""
    aside = file.with_name(f"{file.name}.part")
    with exit_codes(as_json=as_json), Client(url) as client:
        try:
            with aside.open("wb") as out:
                for block in client.export_collection(name, chunks=chunks):
                    out.write(block)
            aside.replace(file)
        except OSError as exc:
            raise InvalidInput(f"{file} cannot be written: {exc.strerror}.") from exc
        finally:
            aside.unlink(missing_ok=True)
        written = file.stat().st_size
        print_json({"file": str(file), "bytes": written}) if as_json else say(f"Wrote {file} ({size(written)}).")


@app.command("import")
def import_collection(
    file: Annotated[Path, typer.Argument(help="What `penstock collections export` wrote.", exists=True)],
    new_name: NewName,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a new collection of an exported one. A damaged file is refused."""
    with exit_codes(as_json=as_json), Client(url) as client:
        _wait(client, client.import_collection(new_name, file), as_json=as_json)


def _wait(client: Client, batch: Batch, *, as_json: bool) -> None:
    done = client.wait_batch(batch.id, timeout_s=24 * 3600.0)
    print_json(done) if as_json else say(f"{done.collection!r}: {counts(done) or 'no documents'}.")
    if done.error:
        say(f"Error: {done.error.message} [{done.error.code}]")
        say(f"Delete {done.collection!r} before you try again under that name.")
    if done.state is not BatchState.DONE or set(done.counts) - {BatchItemState.DONE}:
        say(f"See `penstock batches show {done.id}`.")
        raise typer.Exit(FAILED)


def _age(collection: Collection) -> str:
    return age(time.time() - collection.created_at)
