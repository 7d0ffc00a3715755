"""`penstock collections …`"""

import time
from typing import Annotated

import typer

from penstock.cli.output import Json, Url, age, exit_codes, print_json, print_table, say
from penstock.client import Client
from penstock.types import Collection, CollectionOptions

app = typer.Typer(help="List, make, show and delete collections.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(help="The collection's name.")]


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
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a collection."""
    options = CollectionOptions(embedding_model=model, chunk_tokens=chunk_tokens, chunk_overlap=chunk_overlap)
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
                    ["chunk tokens", found.options.chunk_tokens],
                    ["chunk overlap", found.options.chunk_overlap],
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


def _age(collection: Collection) -> str:
    return age(time.time() - collection.created_at)
