"""`penstock eval`"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.status import Status

from penstock.cli.output import Json, exit_codes, print_json, print_table, say
from penstock.models.pool import ModelPool
from penstock.pipeline.evaluate import MODES, EvalReport
from penstock.pipeline.evaluate import evaluate as measure
from penstock.settings import load_settings


def evaluate(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="With corpus.jsonl, queries.jsonl and qrels.tsv (BEIR).")
    ],
    model: Annotated[str, typer.Option(help="Embedding model, by its name in the settings.")] = "default",
    index: Annotated[str, typer.Option(help="URL of an index engine to measure; by default LanceDB.")] = "",
    as_json: Json = False,
) -> None:
    """Measure retrieval on questions whose answers are known: by meaning alone, by words alone, and both fused.

    Needs no server. A collection's own settings do not count here; the default ones do.
    """
    with exit_codes(as_json=as_json):
        report = asyncio.run(_run(folder, model, index))
    if as_json:
        print_json(report.to_json())
        return
    columns = ["lane", *report.lanes["fused"].to_json()]
    print_table(columns, [[mode, *report.lanes[mode].to_json().values()] for mode in MODES])
    if report.answer_in_top is not None:
        typer.echo(f"an answer is among the first ten fused passages: {report.answer_in_top:.4f}")
    say(f"{report.queries:,} questions, {report.passages:,} passages, {report.chunks:,} chunks")


async def _run(folder: Path, model: str, index: str) -> EvalReport:
    with Status("", console=Console(stderr=True, quiet=not sys.stderr.isatty())) as status:

        def show(stage: str, done: int, total: int) -> None:
            status.update(f"{stage} {done:,}" + (f" of {total:,}" if total else ""))

        async with ModelPool(load_settings().models) as pool:
            return await measure(folder, await pool.embedder(model), index_url=index, report=show)
