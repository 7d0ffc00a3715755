"""Leaves a provider alone that fails again and again."""

import time
from collections.abc import Callable

_MAX_COOLDOWN_S = 60.0


class Breaker:
    """Opens after `failures` in a row, with no call in between that got words; lets one call try after `cooldown_s`,
    twice as long after each failed try.

    Every call that was admitted ends in one of `succeeded`, `failed` or `abandoned`.
    """

    def __init__(self, *, failures: int, cooldown_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures = 0
        self._opened = 0
        self._open_until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether calls are refused now."""
        return self._failures >= self._threshold and (self._trying or self._clock() < self._open_until)

    def admit(self) -> bool:
        """Whether a call may go. The first one after the cooldown is the try that decides."""
        if self.open:
            return False
        self._trying = self._failures >= self._threshold
        return True

    def began(self) -> None:
        """A call gets words. After a try others may go too, but one more failure opens again; else the row is broken:
        of a thousand calls in flight five fail soon, long before the first of them is through."""
        if self._trying:
            self._trying = False
            self._failures = self._threshold - 1
        elif self._failures < self._threshold:
            self._failures = 0

    def succeeded(self) -> None:
        self._trying = False
        self._failures = self._opened = 0

    def failed(self) -> None:
        if self._failures >= self._threshold and not self._trying:
            return  # one of those that went before it opened
        self._trying = False
        self._failures += 1
        if self._failures >= self._threshold:
            pause = min(self._cooldown_s * 2**self._opened, _MAX_COOLDOWN_S)
            self._open_until = self._clock() + pause
            self._opened += 1

    def abandoned(self) -> None:
        """The caller went away before anything could be learnt."""
        self._trying = False
