"""`penstock serve`: the whole server on this machine."""

import os

import typer

from penstock.app.data_folder import own_folder
from penstock.app.supervisor import Supervisor
from penstock.cli.process import (
    DataDir,
    Host,
    Port,
    as_environment,
    exit_on_error,
    run,
    start,
    warn_of_unknown_variables,
)


def serve(data_dir: DataDir = None, host: Host = None, port: Port = None) -> None:
    """Run the whole server on this machine: one api process and one worker process, both kept alive.

    One line on stdout says the URL once work is taken. SIGTERM stops in order, a second one at once.
    """
    flags = {"data_dir": data_dir, "api": {"host": host, "port": port}}
    settings = start(flags)
    warn_of_unknown_variables()
    environ = os.environ | as_environment(flags)
    with exit_on_error(), own_folder(settings.data_dir):
        orderly = run(Supervisor(settings, environ, _announce).run())
    raise typer.Exit(0 if orderly else 1)


def _announce(url: str) -> None:
    typer.echo(f"Penstock is ready on {url}")
