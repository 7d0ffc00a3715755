"""A file that is opened in a thread is closed, whatever becomes of the caller."""

import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.blobs.opening import opened


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_it_is_closed_behind_its_use(executor: ThreadPoolExecutor) -> None:
    async with opened(executor, lambda: io.BytesIO(b"abc")) as file:
        assert file.read() == b"abc"
    assert file.closed


async def test_it_is_closed_where_its_caller_was_cancelled_meanwhile(executor: ThreadPoolExecutor) -> None:
    begun, go, closed = threading.Event(), threading.Event(), asyncio.Event()

    class File(io.BytesIO):
        def close(self) -> None:
            super().close()
            closed.set()

    def open_it() -> File:
        begun.set()
        go.wait()
        return File()

    async def use() -> None:
        async with opened(executor, open_it):
            pytest.fail("nobody waited for it")

    task = asyncio.create_task(use())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.wait({task})
    go.set()
    await closed.wait()


async def test_what_cannot_be_opened_says_so(executor: ThreadPoolExecutor) -> None:
    def open_it() -> io.BytesIO:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        async with opened(executor, open_it):
            pytest.fail("it was opened")
