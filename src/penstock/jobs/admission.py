"""Whether there is room, and when to come back: the arithmetic that all engines share."""

from penstock.errors import Overloaded
from penstock.jobs.options import Limit

_UNKNOWN_RATE_RETRY_S = 10.0
_MAX_RETRY_S = 600.0
_REFILL = 0.1  # the refused are asked back when a tenth of the limit will be free: one place would have them all back


def fits(jobs: int, size_bytes: int, limit: Limit) -> bool:
    """Whether so much may be live at once."""
    return jobs <= limit.jobs and size_bytes <= limit.payload_bytes


def overloaded(whose: str, jobs: int, size_bytes: int, limit: Limit, drain_per_s: float) -> Overloaded:
    """The refusal of what does not fit: `jobs` and `size_bytes` are what would be live with it."""
    full = jobs > limit.jobs
    excess = jobs - limit.jobs if full else jobs * (1 - limit.payload_bytes / size_bytes)
    wanted = max(excess, _REFILL * min(jobs, limit.jobs), 1.0)
    retry_after_s = wanted / drain_per_s if drain_per_s > 0 else _UNKNOWN_RATE_RETRY_S
    held = f"{limit.jobs} jobs" if full else f"{limit.payload_bytes} bytes"
    return Overloaded(
        f"the queue of {whose} is at its limit of {held}; try again later",
        retry_after_s=round(min(max(retry_after_s, 1.0), _MAX_RETRY_S), 1),
        position=jobs,
    )
