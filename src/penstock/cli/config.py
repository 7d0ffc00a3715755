"""`penstock config …`"""

from typing import Annotated

import typer

from penstock.cli.output import Json, exit_codes, print_json, print_table, say
from penstock.settings import config_file, flat_settings, load_settings, settings_sources, unknown_variables

app = typer.Typer(help="The settings of this machine's server.", no_args_is_help=True, add_completion=False)


@app.callback()
def config() -> None:
    """The settings of this machine's server."""


@app.command()
def show(
    sources: Annotated[bool, typer.Option("--sources", help="Also where each value came from.")] = False,
    as_json: Json = False,
) -> None:
    """Every option and its value; secrets are masked."""
    with exit_codes(as_json=as_json):
        values = flat_settings(load_settings())
        known = settings_sources()
        came_from = {name: known.get(name, "default") for name in values}
        if as_json:
            with_sources = {name: {"value": value, "source": came_from[name]} for name, value in values.items()}
            print_json(with_sources if sources else values)
            return
        columns = ["option", "value", "source"] if sources else ["option", "value"]
        print_table(columns, [[name, value, came_from[name]][: len(columns)] for name, value in values.items()])
        for name in unknown_variables():
            say(f"Warning: {name} is no setting of Penstock.")
        say(f"File: {config_file()}{'' if config_file().is_file() else ' (not there)'}")
