"""Which processes of this machine are dead."""

import os
import subprocess

import pytest

from penstock.jobs.neighbours import is_dead, machine_id

pytestmark = pytest.mark.skipif(not machine_id(), reason="needs /proc")


def test_the_living_the_reaped_and_who_waits_to_be_reaped() -> None:
    assert not is_dead(os.getpid())
    child = subprocess.Popen(["sleep", "60"])
    assert not is_dead(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(child.pid)
    child.wait()
    assert is_dead(child.pid)


def test_a_machine_has_one_name() -> None:
    assert machine_id() == machine_id()
