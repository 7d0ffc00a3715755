"""What the commands share that run until they are stopped: settings, logs, the event loop, the exit status."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from penstock.app.garbage import settle
from penstock.app.lifeline import say_ready
from penstock.errors import PenstockError
from penstock.observability.logs import set_up_logs
from penstock.settings import PREFIX, Settings, load_settings, unknown_variables

T = TypeVar("T")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder that holds everything. [penstock-data]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [7733]")]
Supervised = Annotated[bool, typer.Option(hidden=True, help="Our stdin and stdout belong to a supervisor.")]


def start(flags: Mapping[str, Any]) -> Settings:
    """Settings and logs of a process that runs until it is stopped. `flags` that are None were not given."""
    with exit_on_error():
        settings = load_settings(given(flags))
    set_up_logs(settings.log.level, json_lines=settings.log.json_lines)
    return settings


def warn_of_unknown_variables() -> None:
    """Names the `PENSTOCK_…` variables that nothing reads, most likely typing errors."""
    for name in unknown_variables():
        typer.echo(f"Warning: {name} is no setting of Penstock; see `penstock config show`.", err=True)


def run(main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> T:
    """Runs to the end on an event loop of its own.

    Not uvloop unless asked for: it forks by the rules of `os.fork`, which the index engine's threads do not survive.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def ready(*, supervised: bool) -> None:
    """This process can do its work: what it has loaded for that will stay."""
    settle()
    say_ready(supervised=supervised)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """An error of ours is one clear line on stderr and exit status 1, not a traceback."""
    try:
        yield
    except PenstockError as exc:
        typer.echo(f"Error: {exc.message}", err=True)
        raise typer.Exit(1) from exc


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, as nested as they came."""
    nested = {name: given(value) if isinstance(value, Mapping) else value for name, value in flags.items()}
    return {name: value for name, value in nested.items() if value is not None and value != {}}


def as_environment(flags: Mapping[str, Any], prefix: str = PREFIX) -> dict[str, str]:
    """The flags as the variables that mean the same, for processes that we start: `PENSTOCK_API__PORT=…`."""
    variables: dict[str, str] = {}
    for name, value in given(flags).items():
        if isinstance(value, Mapping):
            variables |= as_environment(value, f"{prefix}{name.upper()}__")
        else:
            variables[f"{prefix}{name.upper()}"] = str(value)
    return variables
