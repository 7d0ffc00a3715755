"""`penstock search`"""

from typing import Annotated, Literal

import typer

from penstock.cli.ask import image_of
from penstock.cli.output import CollectionName, Json, Url, exit_codes, one_line, print_json, say, timings
from penstock.client import Client
from penstock.types import Hit

SHOWN_CHARS = 400


def search(
    query: Annotated[str, typer.Argument(help="What to look for; may be left out with an image.")] = "",
    collection: CollectionName = "default",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many passages.")] = 5,
    mode: Annotated[
        Literal["fused", "dense", "fulltext"], typer.Option(help="By meaning, by words, or both.")
    ] = "fused",
    image: Annotated[
        str | None,
        typer.Option(help="Find pictures like this one: a file, or a URL that the server may fetch."),
    ] = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Find the passages that fit a query best."""
    with exit_codes(as_json=as_json), Client(url) as client:
        result = client.search(query, collection=collection, limit=limit, mode=mode, image=image_of(image))
        if as_json:
            print_json(result)
            return
        for number, hit in enumerate(result.hits, 1):
            typer.echo(f"{number}. {hit.score:.3f} {place(hit)}\n   {shortened(one_line(hit.chunk.text))}\n")
        if not result.hits:
            say(f"Nothing found in the collection {collection!r}.")
        say(timings(result.timings_ms))


def shortened(text: str) -> str:
    """The JSON has the whole of it."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def place(hit: Hit) -> str:
    """`handbook.pdf, page 3, Priorities`"""
    page = f", page {hit.chunk.page}" if hit.chunk.page else ""
    heading = f", {' › '.join(hit.chunk.headings)}" if hit.chunk.headings else ""
    picture = "" if hit.chunk.kind == "text" else f", {hit.chunk.kind}"
    return f"{hit.document_name}{page}{heading}{picture}"
