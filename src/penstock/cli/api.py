"""`penstock api`: one api process."""

from typing import Annotated

import typer
import uvloop

from penstock.api.server import run_api
from penstock.app import garbage
from penstock.app.lifeline import StopSignal
from penstock.cli.process import DataDir, Host, Port, Supervised, exit_on_error, ready, run, start


def api(
    data_dir: DataDir = None,
    host: Host = None,
    port: Port = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="An inherited listening socket.")] = None,
    supervised: Supervised = False,
) -> None:
    """Run one api process: the HTTP door. It loads no model, so start as many as you like behind one address."""
    garbage.rest()
    settings = start({"data_dir": data_dir, "api": {"host": host, "port": port}})
    stop = StopSignal(supervised=supervised)
    with exit_on_error():
        main = run_api(settings, fd=fd, stop=stop, started=lambda: ready(supervised=supervised))
        run(main, uvloop.new_event_loop)
