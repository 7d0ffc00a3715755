"""`penstock ask`"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.output import CollectionName, Json, Url, exit_codes, one_line, print_json, say, timings
from penstock.client import Client
from penstock.errors import InvalidInput
from penstock.types import Answer, Citation


def ask(
    question: Annotated[str, typer.Argument(help="The question, in any language that the documents speak.")],
    collection: CollectionName = "default",
    limit: Annotated[int, typer.Option(min=1, max=50, help="How many passages the answer may draw on.")] = 8,
    image: Annotated[
        str | None,
        typer.Option(help="An image that the question is about: a file, or a URL that the server may fetch."),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for the answer.")] = 120.0,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Ask a question; prints the answer as it is written, then its citations and what took how long.

    An answer that says "not found" is an answer: exit status 0, and `found` is false in the JSON.
    """
    with exit_codes(as_json=as_json), Client(url) as client:
        if as_json:
            answer = client.ask(
                question, collection=collection, limit=limit, image=image_of(image), timeout_s=timeout_s
            )
            print_json(answer)
            return
        told = ""
        pieces = client.ask_stream(
            question, collection=collection, limit=limit, image=image_of(image), timeout_s=timeout_s
        )
        for piece in pieces:
            if isinstance(piece, str):
                typer.echo(piece, nl=False)
                told += piece
            else:
                _end(piece, told)


def image_of(image: str | None) -> Path | str | None:
    """A URL as it is, and anything else as a file, which must be there."""
    if image is None or image.startswith(("http://", "https://")):
        return image
    path = Path(image)
    if not path.is_file():
        raise InvalidInput(f"There is no file {image!r}. Give the path of an image, or an http(s) URL.")
    return path


def _end(answer: Answer, told: str) -> None:
    """What is still to print once the whole answer is known. (`told` can be cut short, or be of an earlier try.)"""
    rest = answer.text.removeprefix(told)
    typer.echo(rest if answer.text.startswith(told) else f"\n{answer.text}" if told else answer.text)
    if answer.citations:
        typer.echo("\n" + "\n".join(citation_lines(answer.citations)))
    say(f"\n{timing_line(answer)}")
    for note in answer.notes:
        if note not in answer.text:
            say(note)


def citation_lines(citations: Sequence[Citation]) -> list[str]:
    """`[1] code.pdf, page 3, Chapter 5` and the quote below it."""
    lines = []
    for citation in citations:
        if citation.kind == "image":
            lines.append("[image] the image of the question")
            continue
        page = f", page {citation.page}" if citation.page else ""
        heading = f", {' › '.join(citation.headings)}" if citation.headings else ""
        lines += [f"[{citation.number}] {citation.document_name}{page}{heading}", f"    “{one_line(citation.quote)}”"]
    return lines


def timing_line(answer: Answer) -> str:
    return f"{answer.model}{' (cached)' if answer.cached else ''}  {timings(answer.timings_ms)}"
