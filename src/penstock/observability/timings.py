"""Stage timings: how long each step of one answer took, in milliseconds."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Timings:
    """A stopwatch with named stages. A stage that runs twice is added up."""

    def __init__(self, queue_wait_ms: float = 0.0) -> None:
        self._started = time.perf_counter()
        self._ms = {"queue_wait": queue_wait_ms}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({name: (time.perf_counter() - started) * 1000})

    def add(self, ms: Mapping[str, float]) -> None:
        """Takes over stages that were measured elsewhere, but not their total."""
        for name, value in ms.items():
            if name != "total":
                self._ms[name] = self._ms.get(name, 0.0) + value

    def to_dict(self) -> dict[str, float]:
        """All stages so far, and `total`: the wait in the queue and everything since this object was made."""
        total = self._ms["queue_wait"] + (time.perf_counter() - self._started) * 1000
        return {name: round(ms, 3) for name, ms in (self._ms | {"total": total}).items()}
