"""`penstock bench …`"""

import asyncio
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec
import typer

from penstock.cli.corpus import Corpus, read_corpus
from penstock.cli.ingestion import Ingestion, Report
from penstock.cli.load import ask_all, read_questions
from penstock.cli.output import FAILED, CollectionName, Json, Url, exit_codes, print_json, print_table, say, timings
from penstock.client import AsyncClient
from penstock.errors import PenstockError
from penstock.models.bench import BenchEmbed, bench_embed, bench_interactive
from penstock.models.pool import ModelPool
from penstock.settings import load_settings

app = typer.Typer(help="Measure this machine.", no_args_is_help=True, add_completion=False)

CorpusPath = Annotated[
    Path, typer.Argument(metavar="CORPUS", help="A folder with corpus.jsonl (BEIR), or any folder or file to ingest.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many of its documents.")]


@app.command()
def embed(
    corpus: CorpusPath,
    limit: Limit = None,
    model: Annotated[str, typer.Option(help="By its name in the settings.")] = "default",
    interactive: Annotated[bool, typer.Option(help="Also questions while bulk work goes on.")] = False,
    as_json: Json = False,
) -> None:
    """How fast this machine embeds texts, with nothing else to do. Needs no server."""
    with exit_codes(as_json=as_json):
        texts = read_corpus(corpus, limit).texts()

        async def run() -> dict[str, object]:
            async with ModelPool(load_settings().models) as pool:
                figures: dict[str, object] = msgspec.to_builtins(await bench_embed(pool, texts, model=model))
                if interactive:
                    questions = [text[:100] for text in texts[:200]]
                    found = await bench_interactive(pool, texts, questions, model=model)
                    figures |= {f"interactive.{name}": value for name, value in msgspec.to_builtins(found).items()}
            return figures

        _print(asyncio.run(run()), as_json=as_json)


@app.command()
def questions(
    file: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help="JSON lines (`question` or `text`), or plain lines.")
    ],
    number: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to ask.")] = 200,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="How many users ask at once.")] = 1,
    collection: CollectionName = "default",
    url: Url = "",
    as_json: Json = False,
) -> None:
    """How long questions take through the API, from the call to the whole answer."""

    async def run() -> None:
        asked = read_questions(file, number)
        async with AsyncClient(url) as client:
            report = await ask_all(client, asked, collection=collection, concurrency=concurrency)
        figures = msgspec.to_builtins(report)
        stages, failed = figures.pop("stages"), figures.pop("failed")
        if as_json:
            print_json(report)
        else:
            _print(figures, as_json=False)
            say(f"mean by stage: {timings(stages)}")
        if failed:
            say("failed: " + ", ".join(f"{code} {times}" for code, times in failed.items()))
            raise typer.Exit(FAILED)

    with exit_codes(as_json=as_json):
        asyncio.run(run())


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One ingest of the corpus, and the raw embedding of the same texts beside it (0: not asked for)."""

    documents: int
    chunks: int
    seconds: float
    documents_per_s: float
    chunks_per_s: float
    embed_texts_per_s: float = 0.0

    @property
    def over_embed(self) -> float:
        return self.documents_per_s / self.embed_texts_per_s if self.embed_texts_per_s else 0.0


@app.command()
def ingest(
    corpus: CorpusPath,
    limit: Limit = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each into a fresh collection, which is deleted afterwards.")] = 3,
    with_embed: Annotated[bool, typer.Option("--with-embed", help="Also `bench embed` before every round.")] = False,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """How fast documents become searchable through the API, beside the raw embedding rate of the same texts.

    Of a corpus.jsonl, each passage is a document. With --with-embed the corpus must be one.
    """
    with exit_codes(as_json=as_json):
        found = read_corpus(corpus, limit)
        texts = found.texts() if with_embed else []
        measured = []
        for number in range(rounds):
            raw = _embed_elsewhere(corpus, limit).texts_per_s if texts else 0.0
            measured.append(asyncio.run(_round(url, found, raw)))
            say(f"round {number + 1} of {rounds}: {measured[-1].documents_per_s:.1f} documents/s")
        figures: dict[str, object] = {
            "documents": measured[0].documents,
            "chunks": measured[0].chunks,
            "documents_per_s": median(one.documents_per_s for one in measured),
            "chunks_per_s": median(one.chunks_per_s for one in measured),
        }
        if with_embed:
            figures["embed_texts_per_s"] = median(one.embed_texts_per_s for one in measured)
            figures["over_embed"] = median(one.over_embed for one in measured)
        _print(figures, as_json=as_json)


async def _round(url: str, corpus: Corpus, embed_texts_per_s: float) -> Round:
    name = f"bench-{secrets.token_hex(4)}"
    async with AsyncClient(url) as client:
        await client.create_collection(name)
        try:
            report = await Ingestion(client, name, longest_look_s=0.1).run(corpus.files)
        finally:
            await client.delete_collection(name)
    _refuse_failures(report)
    return Round(
        documents=report.done,
        chunks=report.chunks,
        seconds=report.seconds,
        documents_per_s=report.documents_per_s,
        chunks_per_s=report.chunks / report.seconds,
        embed_texts_per_s=embed_texts_per_s,
    )


def _refuse_failures(report: Report) -> None:
    """A rate over documents that failed early would flatter."""
    if report.failures:
        first = report.failures[0]
        raise PenstockError(f"{len(report.failures)} documents failed, the first of them {first.name}: {first.message}")


def _embed_elsewhere(corpus: Path, limit: int | None) -> BenchEmbed:
    """`penstock bench embed` in a process of its own, which gives its memory and threads back before the ingest."""
    command = [sys.executable, "-m", "penstock", "bench", "embed", str(corpus), "--json"]
    command += ["--limit", str(limit)] if limit else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PenstockError(f"`penstock bench embed` failed: {done.stderr.strip()}")
    return msgspec.json.decode(done.stdout, type=BenchEmbed)


def _print(figures: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json({name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()})
    else:
        print_table(["figure", "value"], [[name, _figure(value)] for name, value in figures.items()])


def _figure(value: object) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
