"""Files opened in a thread, and closed whatever becomes of who waits for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import IO, Any, TypeVar

F = TypeVar("F", bound=IO[bytes])


@asynccontextmanager
async def opened(executor: Executor, open_it: Callable[[], F]) -> AsyncIterator[F]:
    """What `open_it` opens, as a context manager. Raises what it raises.

    A caller that is cancelled meanwhile does not wait for it: the file is closed as soon as it is open.
    """
    opening = asyncio.get_running_loop().run_in_executor(executor, open_it)
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise
    with file:
        yield file


def _close(opening: asyncio.Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
