"""How many tokens a batch may have on a device whose memory is small, shared and not to be foretold."""

import time
from collections.abc import Callable

PAUSE_S = 10.0
"""After a batch that did not fit the budget rests for twice as long, and longer with every further one."""

LONGEST_PAUSE_S = 640.0

LOOK_S = 1.0
"""How often the device is asked for its free memory."""


class TokenBudget:
    """At most `most` tokens, and fewer while the device's memory does not hold so many. One thread uses it.

    `room` tells what free memory holds now (None: it is no limit). Beside it, after a batch that did not fit, the
    budget is half of that batch; it grows again by a quarter at a time, and more slowly with every failure, so that a
    limit that stays is not run into for ever.
    """

    def __init__(
        self, most: int, *, room: Callable[[], int | None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._room = room
        self._clock = clock
        self._safe: int | None = None
        self._pause_s = PAUSE_S
        self._grow_at = 0.0
        self._look()

    @property
    def tokens(self) -> int:
        """Tokens of one batch at most, padding included."""
        return min(limit for limit in (self._most, self._safe, self._free) if limit is not None)

    def refuses(self, tokens: int) -> bool:
        """Whether memory, not mere habit, speaks against a batch of that size."""
        return any(limit is not None and tokens > limit for limit in (self._safe, self._free))

    def failed(self, tokens: int) -> None:
        """A batch of that size did not fit."""
        half = max(1, tokens // 2)
        self._safe = half if self._safe is None else min(half, self._safe)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._grow_at = self._clock() + self._pause_s
        self._look()

    def refresh(self) -> None:
        """Ask for the free memory, and grow by a quarter, when it is time for either."""
        now = self._clock()
        if now >= self._look_at:
            self._look()
        if self._safe is not None and now >= self._grow_at:
            grown = self._safe * 5 // 4 + 1
            self._safe = grown if grown < self._most else None
            self._grow_at = now + self._pause_s
            if self._safe is None:
                self._pause_s = PAUSE_S

    def _look(self) -> None:
        room = self._room()
        self._free = None if room is None else max(1, room)
        self._look_at = self._clock() + LOOK_S
