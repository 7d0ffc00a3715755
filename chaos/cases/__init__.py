"""The cases by number, in the order in which a run takes them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from chaos.arena import Arena
from chaos.cases import (
    backlog,
    cancel,
    clock,
    crash_points,
    everything,
    frozen,
    machine,
    monkey,
    poison,
    redis_faults,
    replace,
    standby,
    stop,
    submit,
    two_workers,
)
from chaos.tally import Tally

Case: TypeAlias = Callable[[Arena], Awaitable[list[Tally]]]

CASES: Mapping[str, Case] = {
    "1": crash_points.run,
    "1b": two_workers.run,
    "1e": standby.run,
    "2": submit.run_killed_api,
    "5": frozen.run,
    "6": clock.run,
    "7": poison.run,
    "8": stop.run,
    "9": submit.run_duplicates,
    "10": cancel.run,
    "11": replace.run,
    "12": machine.run,
    "13": backlog.run,
    "14": redis_faults.run_killed,
    "15": redis_faults.run_flushed,
    "3": everything.run,
    "4": monkey.run,
}
