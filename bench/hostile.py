"""What becomes of files that mean harm: each in a parser process with its limits, one table (case 30).

    python bench/hostile.py [FOLDER …] [--no-bombs] [--json] [--time-limit S] [--memory-limit MB]

Without folders: docs/hostile, docs/odd-pdf and images/hostile of the data, and the bombs of `penstock.testing.bombs`.
`peak` is the most resident memory that a parser had during the file, sampled; `worker` by how much this process, the
parsers' parent, was larger afterwards. Exit status 1 when a file ends outside of its limits or takes others with it.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock.errors import InvalidInput, ParseError
from penstock.models.options import DEFAULT_MODEL, ModelsOptions
from penstock.models.weights import find_model
from penstock.pipeline import media
from penstock.pipeline.parsing import ChunkingRequest, ParserPool, ParsingOptions
from penstock.pipeline.parsing.limits import rss_bytes
from penstock.testing.bombs import BOMBS

DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("docs/hostile", "docs/odd-pdf", "images/hostile")
SAMPLED_EVERY_S = 0.02
IDLE_PARSER_MB = 150
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    size_mb: float
    outcome: str
    seconds: float
    peak_mb: float
    worker_mb: float


class Campaign:
    """One pool, one file after the other, and a harmless document after each."""

    def __init__(self, pool: ParserPool, options: ParsingOptions) -> None:
        self._pool = pool
        self._options = options
        model = find_model(DEFAULT_MODEL, cache_dir=ModelsOptions().cache_dir)
        self._chunking = ChunkingRequest(
            chunker="recursive", tokens=240, overlap=32, tokenizer_file=str(model / "tokenizer.json")
        )

    async def run(self, name: str, read: Callable[[], bytes]) -> Row:
        data = read()
        before, began = rss_bytes(), time.perf_counter()
        async with self._peak() as peak:
            outcome = await self._outcome(name, data)
        seconds, grown = time.perf_counter() - began, rss_bytes() - before
        alive = await self._pool.parse(b"still alive", name="a.txt", media_type=media.TEXT)
        if alive.text != "still alive":
            outcome = "others suffered"
        return Row(name, len(data) / 2**20, outcome, seconds, peak[0] / 2**20, grown / 2**20)

    def within(self, row: Row) -> bool:
        return (
            row.outcome != "others suffered"
            and row.seconds <= self._options.time_limit_s + GRACE_S
            and row.peak_mb <= self._options.memory_limit_mb + IDLE_PARSER_MB
        )

    async def _outcome(self, name: str, data: bytes) -> str:
        try:
            media_type = media.sniff(name, data[: media.HEAD_BYTES], None)
            chunked = await self._pool.parse_and_chunk(data, name=name, media_type=media_type, chunking=self._chunking)
        except (ParseError, InvalidInput) as exc:
            return exc.code
        return f"done, {len(chunked.pieces)} passages"

    @asynccontextmanager
    async def _peak(self) -> AsyncIterator[list[int]]:
        peak = [0]

        async def sample() -> None:
            while True:
                for pid in self._pool.pids:
                    with suppress(OSError):
                        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])  # noqa: ASYNC240
                        peak[0] = max(peak[0], pages * 4096)
                await asyncio.sleep(SAMPLED_EVERY_S)

        task = asyncio.create_task(sample())
        try:
            yield peak
        finally:
            task.cancel()


def sources(folders: list[Path], *, bombs: bool) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for folder in folders:
        for file in sorted(folder.iterdir()):
            yield f"{folder.name}/{file.name}", file.read_bytes
    if bombs:
        yield from ((f"bomb/{name}", make) for name, make in BOMBS.items())


async def run(args: argparse.Namespace) -> int:
    options = ParsingOptions(processes=1, time_limit_s=args.time_limit, memory_limit_mb=args.memory_limit)
    rows, bad = [], []
    async with ParserPool(options) as pool:
        campaign = Campaign(pool, options)
        await pool.prewarm()
        folders = args.folders or [folder for name in FOLDERS if (folder := args.data / name).is_dir()]
        for name, read in sources(folders, bombs=not args.no_bombs):
            row = await campaign.run(name, read)
            rows.append(row)
            if not campaign.within(row):
                bad.append(row)
            mark = "" if campaign.within(row) else "  <-- outside of its limits"
            print(
                f"{row.name:62.62} {row.size_mb:8.2f} MB {row.seconds:7.2f} s peak {row.peak_mb:6.0f} MB "
                f"worker {row.worker_mb:+6.1f} MB  {row.outcome}{mark}",
                file=sys.stderr if args.json else sys.stdout,
            )
    outcomes = Counter(row.outcome.partition(",")[0] for row in rows)
    if args.json:
        print(json.dumps({"files": len(rows), "outside": len(bad), "rows": [asdict(row) for row in rows], **outcomes}))
    else:
        print(f"\n{len(rows)} files, {len(bad)} outside of their limits: {dict(outcomes)}")
    return 1 if bad else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--no-bombs", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the table to stderr")
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--memory-limit", type=int, default=512)
    parser.add_argument("--data", type=Path, default=DATA)
    sys.exit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
