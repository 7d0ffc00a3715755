"""How many calls a provider may have in flight: falls under 429, recovers while all goes well."""

import asyncio
from collections import deque


class AdaptiveLimit:
    """Additive increase, multiplicative decrease (Chiu and Jain 1989), first come first served.

    A round trip's worth of refusals counts once: only a call that was sent after the last cut can cut again.
    Until the first cut, each call that the provider lets in makes room for one more (slow start, RFC 5681), so that at
    most `start` calls more than it has taken are ever on their way, whenever they come: a thousand at once to one that
    takes fifty would all fail, refused as often as they may be.
    Callers are bounded by the jobs that a worker runs at once.
    """

    def __init__(self, ceiling: int, *, start: int | None = None) -> None:
        self._ceiling = ceiling
        self._start = min(ceiling, start or ceiling)
        self._limit = float(self._start)
        self._cuts = 0
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def limit(self) -> int:
        return int(self._limit)

    async def acquire(self, *, urgent: bool = False) -> int:
        """Waits for a turn, which `release` ends; an urgent call before all that wait already.

        Gives the number that `refused` wants to hear.
        """
        if self._free and not self._waiting:
            self.in_flight += 1
            return self._cuts
        turn = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(turn) if urgent else self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise
        return self._cuts

    def release(self) -> None:
        self.in_flight -= 1
        self._let_in()

    def refused(self, cuts: int, retry_after_s: float | None) -> None:
        """The provider said 429 to a call; nobody starts another one before `retry_after_s` have passed."""
        if cuts == self._cuts:
            self._cuts += 1
            self._limit = max(1.0, self._limit / 2)
        if retry_after_s:
            self._held += 1
            asyncio.get_running_loop().call_later(retry_after_s, self._unhold)

    def let_in(self) -> None:
        """The provider began to answer a call."""
        if not self._cuts and self._limit < self.in_flight + self._start:
            self._limit = min(float(self._ceiling), self._limit + 1)
            self._let_in()

    def served(self) -> None:
        """The provider answered a call: one more at once after `limit` such."""
        self._limit = min(float(self._ceiling), self._limit + 1 / self._limit)
        self._let_in()

    def _unhold(self) -> None:
        self._held -= 1
        self._let_in()

    @property
    def _free(self) -> bool:
        return not self._held and self.in_flight < self.limit

    def _let_in(self) -> None:
        while self._waiting and self._free:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.in_flight += 1
                turn.set_result(None)
