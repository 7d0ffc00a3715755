"""`python -m chaos`: kills real processes of Penstock at every moment that matters, and counts what became of the work.

The last line is `lost=… doubled=… stuck=… slowest_recovery_s=…`; the exit status is 1 if a promise did not hold.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from pathlib import Path

from chaos.arena import Arena, Engine
from chaos.cases import CASES
from chaos.tally import HEAD, Tally, last_line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--only", help=f"these cases: {','.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="smaller numbers; a few minutes for everything")
    parser.add_argument("--seed", type=int, help="of every random choice (default: a new one, which is printed)")
    parser.add_argument("--minutes", type=float, help="of the random monkey (10; with --quick 0.5)")
    parser.add_argument("--engines", default="sqlite,redis", help="job stores: sqlite,redis")
    parsed = parser.parse_args()
    parsed.only = parsed.only.split(",") if parsed.only else list(CASES)
    parsed.engines = parsed.engines.split(",")
    if unknown := set(parsed.only) - set(CASES) | set(parsed.engines) - {"sqlite", "redis"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if shutil.which("redis-server") is None:
        parser.error("redis-server is not on the PATH (apt-get install redis-server)")
    return parsed


async def run(chosen: argparse.Namespace, seed: int, folder: Path) -> list[Tally]:
    minutes = chosen.minutes or (0.5 if chosen.quick else 10.0)
    engines: tuple[Engine, ...] = tuple(chosen.engines)
    tallies: list[Tally] = []
    arena = Arena(folder=folder, rng=random.Random(seed), quick=chosen.quick, minutes=minutes, engines=engines)
    stop_on_sigterm()
    async with arena:
        for name in chosen.only:
            arena.rng.seed(f"{seed} {name}")  # a case alone does what it does among the others
            started = time.monotonic()
            try:
                found = await CASES[name](arena)
            except Exception as exc:
                traceback.print_exc()
                found = [Tally(case=name, what="the case broke down", problems=[repr(exc)])]
            for tally in found:
                tell(tally)
            busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
            print(f"     ({time.monotonic() - started:.0f} s, {busy})", flush=True)
            tallies += found
    return tallies


def stop_on_sigterm() -> None:
    """As Ctrl-C does: what the run started ends with it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def tell(tally: Tally) -> None:
    print(tally.row())
    if found := tally.recoveries_s:
        print(f"       {len(found)} recoveries, half of them within {statistics.median(found):.2f} s")
    for line in [*(f"! {problem}" for problem in tally.problems), *tally.notes[:20]]:
        print(f"       {line}")


def main() -> int:
    chosen = arguments()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="penstock-chaos-"))
    print(f"seed {seed}\n{HEAD}", flush=True)
    try:
        tallies = asyncio.run(run(chosen, seed, folder))
    except asyncio.CancelledError:
        print(f"stopped; what the servers wrote is kept in {folder}")
        return 1
    held = not any(tally.verdict for tally in tallies)
    if held:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"what the servers wrote is kept in {folder}; the same again: python -m chaos --seed {seed}")
    print(last_line(tallies))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
