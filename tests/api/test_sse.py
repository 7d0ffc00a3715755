"""The event stream by itself: wire format, keep-alives, backpressure, and how it ends."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from penstock.api.sse import EventStream, event


class Connection:
    """The server's side of a connection, its reader in the test's hand."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.left = asyncio.Event()
        self.leave_after = b""

    async def send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)
        if self.leave_after and self.leave_after in self.body:
            self.left.set()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def run(self, stream: EventStream) -> None:
        await stream({"type": "http"}, self.receive, self.send)


def test_an_event_is_one_line_of_data_whatever_it_holds() -> None:
    assert event("delta", {"text": "a\r\nb\n\n: c\u2028"}, event_id=7) == (
        'id: 7\nevent: delta\ndata: {"text":"a\\r\\nb\\n\\n: c\u2028"}\n\n'.encode()
    )


async def test_a_stream_ends_when_its_events_do() -> None:
    async def two() -> AsyncGenerator[bytes, None]:
        yield b"one\n\n"
        yield b"two\n\n"

    connection = Connection()
    await connection.run(EventStream(two()))
    assert connection.body == b"retry: 1000\n\none\n\ntwo\n\n"
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_quiet_stream_is_kept_alive_until_the_reader_leaves() -> None:
    closed = False

    async def nothing() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            await asyncio.Event().wait()
            yield b""
        finally:
            closed = True

    connection = Connection()
    connection.leave_after = b": keep-alive\n\n" * 3
    await connection.run(EventStream(nothing(), keep_alive_s=0.001))
    assert closed


async def test_a_slow_reader_slows_the_events() -> None:
    made = 0

    async def flood() -> AsyncGenerator[bytes, None]:
        nonlocal made
        while True:
            made += 1
            yield b"x"

    connection = Connection()
    connection.reading.clear()
    running = asyncio.create_task(connection.run(EventStream(flood())))
    for _ in range(100):
        await asyncio.sleep(0)
    assert made <= 1
    connection.reading.set()
    connection.left.set()
    await running


async def test_an_error_in_the_events_comes_out_as_it_is() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        await Connection().run(EventStream(broken()))
