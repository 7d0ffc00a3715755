"""The collector rests while a process starts, and works from then on."""

import subprocess
import sys

STEPS = """
import gc
from penstock.app import garbage
print(gc.isenabled())
garbage.rest()
print(gc.isenabled())
garbage.settle()
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


def test_it_rests_until_all_is_settled() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "True"]
