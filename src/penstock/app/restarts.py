"""When a child that died is started again."""

FIRST_PAUSE_S, LONGEST_PAUSE_S, HEALTHY_AFTER_S = 0.1, 10.0, 3.0
LONGEST_ONCE_READY_S = 0.3
"""For a child that was ready: its jobs and those of others wait for it, and a start takes longer than this anyway."""


class Restarts:
    """Pauses that double, and start from the first again after a child that was ready for `HEALTHY_AFTER_S`.

    So who is killed now and then is back at once, and what never gets ready does not keep the processor busy.
    """

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def pause_s(self, *, ready_for_s: float) -> float:
        """After a child died that had been ready for so long (0: it never was)."""
        pause_s = FIRST_PAUSE_S if ready_for_s > HEALTHY_AFTER_S else self._next_s
        if ready_for_s > 0:
            pause_s = min(pause_s, LONGEST_ONCE_READY_S)
        self._next_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s
