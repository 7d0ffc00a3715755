"""What LanceDB raises, as errors of ours."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from penstock.errors import DataError, PenstockError, StorageFull, Unavailable

T = TypeVar("T")

COMMIT_ATTEMPTS = 8
_CONFLICTS = ("commit conflict", "too many concurrent writers", "concurrent transaction")
_DAMAGE = (
    "corrupt",
    "not found in schema",
    "invalid magic",
    "not a lance",
    "file is too small",
    "failed to decode",
    "checksum",
)


@contextmanager
def lance_errors(doing: str) -> Iterator[None]:
    """Maps the engine's errors by what they say; it has no types for them. `doing` completes "Could not …"."""
    try:
        yield
    except PenstockError:
        raise
    except (RuntimeError, ValueError, OSError) as exc:
        text = str(exc)
        lowered = text.lower()
        short = text.partition(", /")[0][:300]  # without the place in the engine's source
        if "no space left" in lowered or "os error 28" in lowered:
            raise StorageFull(
                f"Could not {doing}: the disk is full. Free some space; nothing was half-written"
            ) from exc
        if any(sign in lowered for sign in _DAMAGE):
            raise DataError(
                f"Could not {doing}: the index is damaged ({short}). Rebuild it from the ledger with `penstock reindex`"
            ) from exc
        raise Unavailable(f"Could not {doing}: {short}", code="index_unavailable") from exc


def is_conflict(error: BaseException) -> bool:
    """Whether another process committed first, so that the same call may be tried again."""
    return isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in _CONFLICTS)


async def retry_commit(commit: Callable[[], Awaitable[T]], *, attempts: int = COMMIT_ATTEMPTS) -> T:
    """Runs a write again while other processes' commits come first, with growing pauses."""
    for attempt in range(attempts):
        try:
            return await commit()
        except (RuntimeError, OSError) as exc:
            if not is_conflict(exc) or attempt == attempts - 1:
                raise
        await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311
    raise AssertionError("the loop returns or raises")
