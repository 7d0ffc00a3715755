"""Case 12: random walks through the state machine, the same model for every engine; in the tests a short one."""

import asyncio
import os
import subprocess
import sys

from chaos.arena import Arena
from chaos.processes import ROOT
from chaos.tally import Tally

TEST = "tests/jobs/test_state_machine.py"
ENGINES = 3
LONGEST_S = 3600.0


async def run(arena: Arena) -> list[Tally]:
    examples = arena.few(25, 1000)
    tally = Tally(case="12", what=f"{examples} walks of 50 steps: memory, SQLite, Redis", runs=ENGINES * examples)
    environ = os.environ | {"PENSTOCK_EXAMPLES": str(examples)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEST]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environ, capture_output=True, timeout=LONGEST_S, check=False
    )
    if done.returncode != 0:
        text = done.stdout.decode()
        tally.problems.append(f"an engine left the model:\n{text[-3000:]}")
    tally.require(b"skipped" not in done.stdout, "an engine was skipped")
    return [tally]
