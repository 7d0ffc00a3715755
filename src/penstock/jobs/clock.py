"""The clocks that a store reads, as one argument, so that a test can turn them."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` is Unix time and may jump; `steady` never does, and is the same for all processes of one machine."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
