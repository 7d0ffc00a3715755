"""How many tokens a batch may have on a device whose memory is small, shared and not to be foretold."""

import time
from collections.abc import Callable

PAUSE_S = 10.0
"""After a change the budget rests so long before it grows by a quarter."""

LONGEST_PAUSE_S = 640.0


class TokenBudget:
    """At most `most` tokens, and fewer while the device's memory does not hold so many. One thread uses it.

    `room` tells what free memory holds now (None: it is no limit). After a batch that did not fit the budget is half
    of that batch. It grows again by a quarter at a time, as far as there is room, and more slowly with every failure,
    so that a limit that stays is not run into for ever.
    """

    def __init__(
        self, most: int, *, room: Callable[[], int | None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._room = room
        self._clock = clock
        self._pause_s = PAUSE_S
        self._grow_at = clock() + PAUSE_S
        self._safe = self._bounded(most)

    @property
    def tokens(self) -> int:
        """Tokens of one batch at most, padding included."""
        return self._most if self._safe is None else min(self._most, self._safe)

    def refuses(self, tokens: int) -> bool:
        """Whether memory, not mere habit, speaks against a batch of that size."""
        return self._safe is not None and tokens > self._safe

    def failed(self, tokens: int) -> None:
        """A batch of that size did not fit."""
        half = max(1, tokens // 2)
        self._safe = half if self._safe is None else min(half, self._safe)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._grow_at = self._clock() + self._pause_s

    def refresh(self) -> None:
        """Grow by a quarter when the time has come."""
        if self._safe is None or self._clock() < self._grow_at:
            return
        self._safe = self._bounded(self._safe * 5 // 4 + 1)
        self._grow_at = self._clock() + self._pause_s

    def _bounded(self, wanted: int) -> int | None:
        """`wanted`, or what there is room for; None once neither memory nor a past failure is a limit."""
        room = self._room()
        if room is not None:
            return max(1, min(wanted, room))
        return None if wanted >= self._most else wanted
