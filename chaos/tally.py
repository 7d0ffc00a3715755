"""What a case counted, and the table of all cases."""

from collections.abc import Sequence
from dataclasses import dataclass, field

LEASE_LIMIT_S = 7.0
"""A lease and a second: a worker vanished, another one is there."""
SERVE_LIMIT_S = 3.0
"""`penstock serve` sees its worker die, hands its jobs back and starts it again."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """`lost`: accepted and gone, or not ended as it should. `doubled`: in effect more than once. `stuck`: not ended.

    `recoveries_s`: from each death to the moment when each job that it interrupted ran again. `problems` are promises
    of the case itself that did not hold.
    """

    case: str
    what: str
    limit_s: float = LEASE_LIMIT_S
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def slowest_s(self) -> float:
        return max(self.recoveries_s, default=0.0)

    @property
    def verdict(self) -> str:
        if self.lost or self.doubled or self.stuck or self.problems:
            return "BROKEN"
        return "LATE" if self.slowest_s > self.limit_s else ""

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)

    def row(self) -> str:
        recovery = f"{self.slowest_s:.2f} of {self.limit_s:g} s" if self.recoveries_s else "-"
        counts = f"{self.runs:>7} {self.lost:>5} {self.doubled:>8} {self.stuck:>6}"
        return f"{self.case:<4} {self.what:<58} {counts} {recovery:>15}  {self.verdict}".rstrip()


HEAD = f"{'case':<4} {'what':<58} {'runs':>7} {'lost':>5} {'doubled':>8} {'stuck':>6} {'slowest recovery':>15}"


def last_line(tallies: Sequence[Tally]) -> str:
    lost, doubled, stuck = (sum(getattr(tally, name) for tally in tallies) for name in ("lost", "doubled", "stuck"))
    slowest = max((tally.slowest_s for tally in tallies), default=0.0)
    return f"lost={lost} doubled={doubled} stuck={stuck} slowest_recovery_s={slowest:.2f}"
