"""The command line `penstock`: what there is. Each command's module is imported when the command is used."""

import gc
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import penstock

COMMANDS = {
    "serve": ("penstock.cli.serve:serve", "Run the whole server on this machine."),
    "api": ("penstock.cli.api:api", "Run one api process."),
    "worker": ("penstock.cli.worker:worker", "Run one worker process."),
    "ingest": ("penstock.cli.ingest:ingest", "Upload files and folders, and wait until they can be searched."),
    "ask": ("penstock.cli.ask:ask", "Ask a question; prints the answer with its citations."),
    "search": ("penstock.cli.search:search", "Find the passages that fit a query best."),
    "batches": ("penstock.cli.batches:app", "Add many documents at once: archives, URLs, a folder of the server."),
    "documents": ("penstock.cli.documents:app", "List, show and delete documents."),
    "collections": ("penstock.cli.collections:app", "List, make, show and delete collections."),
    "jobs": ("penstock.cli.jobs:app", "List, follow, cancel and retry jobs."),
    "queues": ("penstock.cli.queues:queues", "Show how the queue does, by class."),
    "workers": ("penstock.cli.workers:workers", "Show the worker processes."),
    "eval": ("penstock.cli.evaluate:evaluate", "Measure retrieval on questions whose answers are known."),
    "bench": ("penstock.cli.bench:app", "Measure embedding, ingest and questions on this machine."),
    "reindex": ("penstock.cli.reindex:reindex", "Rebuild a collection's index from the ledger."),
    "models": ("penstock.cli.models:models", "Show where each model's weights come from."),
    "keys": ("penstock.cli.keys:app", "Make, list and revoke API keys, on the server itself."),
    "doctor": ("penstock.cli.doctor:doctor", "Check this machine and the data folder, and say what to do."),
    "config": ("penstock.cli.config:app", "Show the settings and where each comes from."),
}
"""Name → where it is (`module:attribute`, a `typer.Typer` or a function) and its line in `penstock --help`."""


class LazyCommand(TyperCommand):
    """Stands for a command until it is used, so that `penstock ask` does not pay for what `penstock serve` imports."""

    def __init__(self, name: str, target: str, summary: str) -> None:
        super().__init__(name=name, help=summary)
        self._target = target

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the real command, which is what runs then."""
        module, _, attribute = self._target.partition(":")
        gc.disable()  # imports make no garbage, and the collector would look through them several times over
        found = getattr(import_module(module), attribute)
        gc.enable()
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(self.name)(function)
        return get_command(found).make_context(info_name, args, parent=parent, **extra)


app = typer.Typer(
    name="penstock",
    help="A self-hosted RAG server: documents in, answers with citations out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables would show keys and documents
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(penstock.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of `penstock` itself."""


def command_line() -> TyperGroup:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for name, (target, summary) in COMMANDS.items():
        group.add_command(LazyCommand(name, target, summary))
    return group


def main() -> None:
    command_line()()
