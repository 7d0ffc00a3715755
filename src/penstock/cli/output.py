"""How commands speak: results on stdout, talk on stderr, one JSON document with `--json`, no decoration into pipes."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.client.requests import UNREACHABLE
from penstock.errors import ConfigError, InvalidInput, PenstockError

FAILED = 1
USAGE = 2
UNREACHABLE_EXIT = 3
INTERRUPTED = 130

STAGES = ("queue_wait", "embed", "retrieve", "rerank", "first_token", "generate", "total")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Url = Annotated[
    str, typer.Option(envvar="PENSTOCK_URL", help="The server.", show_default="http://127.0.0.1:7733", metavar="URL")
]
CollectionName = Annotated[str, typer.Option("--collection", "-c", help="The collection.")]


def print_json(value: object) -> None:
    """Records too. Readable where a person reads it, on one line else."""
    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal, tab-separated lines into a pipe."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [columns, *cells]:
            sys.stdout.write("\t".join(one_line(cell) for cell in row) + "\n")
        return
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def say(text: str) -> None:
    """Talk: to stderr."""
    typer.echo(text, err=True)


def one_line(text: str) -> str:
    return " ".join(text.split())


@contextmanager
def exit_codes(*, as_json: bool = False) -> Iterator[None]:
    """Errors of ours become one line and an exit status: 3 when no server answers, 2 for wrong usage, else 1."""
    try:
        yield
    except PenstockError as exc:
        fail(exc, as_json=as_json)
    except KeyboardInterrupt:
        say("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None


def fail(error: PenstockError, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": {"code": error.code, "message": error.message}})
    say(f"Error: {error.message}")
    raise typer.Exit(exit_status(error)) from error


def exit_status(error: PenstockError) -> int:
    if error.code == UNREACHABLE:
        return UNREACHABLE_EXIT
    return USAGE if isinstance(error, InvalidInput | ConfigError) else FAILED


def count(number: int, noun: str) -> str:
    """`1 document`, `2,067 documents`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def timings(timings_ms: Mapping[str, float]) -> str:
    """`queue_wait 1.3 ms  embed 4.1 ms …  total 30.2 ms`, in the order in which the stages run."""
    order = {stage: number for number, stage in enumerate(STAGES)}
    stages = sorted(timings_ms, key=lambda stage: order.get(stage, len(order)))
    return "  ".join(f"{stage} {timings_ms[stage]:.1f} ms" for stage in stages)


def age(seconds: float) -> str:
    """`4 s`, `3 min`, `5 h`, `2 d`."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(number: float) -> str:
    """`812 B`, `1.4 MB`."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
