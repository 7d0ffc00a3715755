"""Bodies over a real connection: too large, lying about their length, broken off, or never ending."""

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.api import protocol
from penstock.api.body import BodyLimitMiddleware
from penstock.api.problems import BadBody

MIB = 1024 * 1024
HEAD = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'
NothingStored = Callable[[], Awaitable[bool]]
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture
async def wire(server: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=100) as client:
        yield client


async def big_file(mebibytes: int) -> AsyncIterator[bytes]:
    yield HEAD
    for _ in range(mebibytes * 16):
        yield b"x" * 65536
    yield b"\r\n--x--\r\n"


def peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def raw(server: Any, *parts: bytes) -> bytes:
    """What the server says to these bytes until it closes the connection, or says nothing more for a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    said = b""

    async def listen() -> None:
        nonlocal said
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(40):
                while not said.endswith(b"}") and (data := await reader.read(65536)):
                    said += data

    listening = asyncio.create_task(listen())  # before a failed write makes the reader forget what came
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
    await listening
    writer.close()
    return said


@pytest.mark.case(31)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_300_megabytes_are_refused_early_in_constant_memory(
    nothing_stored: NothingStored, wire: httpx.AsyncClient, tmp_path: Path, declared: bool
) -> None:
    size = len(HEAD) + 300 * MIB + len(b"\r\n--x--\r\n")
    headers = {**FORM, "content-length": str(size)} if declared else FORM
    before = peak_rss_mib()
    reply = await wire.post("/v1/documents", content=big_file(300), headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (413, "too_large")
    assert peak_rss_mib() - before < 50
    assert await nothing_stored()
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240


@pytest.mark.case(31)
async def test_a_length_that_is_too_small_does_not_get_more_in(nothing_stored: NothingStored, server: Any) -> None:
    head = b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    start = head + b"Content-Length: %d\r\n\r\n" % (len(HEAD) + 10) + HEAD
    assert (await raw(server, start + b"x" * 1000)).startswith(b"HTTP/1.1 400")
    await raw(server, start, *[b"x" * MIB] * 20)
    assert await nothing_stored()


@pytest.mark.case(31)
async def test_a_client_that_waits_for_leave_is_refused_before_it_sends(server: Any) -> None:
    said = await raw(
        server,
        b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n",
    )
    assert said.startswith(b"HTTP/1.1 413")


@pytest.mark.case(31)
async def test_an_upload_that_breaks_off_leaves_nothing(
    nothing_stored: NothingStored, server: Any, tmp_path: Path
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 9000000\r\n\r\n" + HEAD + b"x" * 3 * MIB
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with httpx.AsyncClient(base_url=server.url) as client:
        while "penstock_http_requests_in_progress 1.0" not in (await client.get("/metrics")).text:
            pass
    assert await nothing_stored()
    assert not [*tmp_path.iterdir()]  # noqa: ASYNC240


@pytest.mark.case(31)
async def test_a_head_without_end_is_refused(server: Any) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    many = b"".join(b"X-%d: a\r\n" % i for i in range(1000))
    assert (await raw(server, start + many + b"\r\n")).startswith(b"HTTP/1.1 431")
    assert (await raw(server, start + b"X-Long: ", *[b"a" * 65536] * 16)).startswith(b"HTTP/1.1 431")
    assert (await raw(server, start + b"X-Long: " + b"a" * 60_000 + b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


PART = b'--x\r\nContent-Disposition: form-data; name="a%d"\r\n\r\nx\r\n'
HOSTILE: dict[str, Callable[[], tuple[bytes, str]]] = {
    "deep": lambda: (b"[" * 10_000 + b"]" * 10_000, "application/json"),
    "wide": lambda: (b'{"documents": [' + b"{}," * 300_000 + b"{}]}", "application/json"),
    "maze": lambda: (b"[" + b"{}," * 5_000_000 + b"{}]", "application/json"),
    "nan": lambda: (b'{"documents": [{"name": "a", "text": NaN}]}', "application/json"),
    "huge": lambda: (b"x" * 100 * MIB, "application/json"),
    "parts": lambda: (b"".join(PART % i for i in range(200_000)) + b"--x--\r\n", FORM["content-type"]),
}


@pytest.mark.case(31)
@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_bodies_are_refused(wire: httpx.AsyncClient, make: Callable[[], tuple[bytes, str]]) -> None:
    body, content_type = make()
    reply = await wire.post("/v1/documents", content=body, headers={"content-type": content_type})
    assert 400 <= reply.status_code < 500


@pytest.mark.case(31)
@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: local"], ids=["silent", "half-a-head"])
async def test_a_connection_that_says_too_little_is_closed(
    server: Any, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    assert await reader.read() == b""
    writer.close()


@pytest.mark.case(31)
async def test_a_body_that_stalls_is_given_up() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    async def stalled() -> Any:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        return await asyncio.Event().wait()

    parts = [b"a"]
    guarded = BodyLimitMiddleware(app, max_bytes=100, max_json_bytes=100, stalled_s=0.01)
    with pytest.raises(BadBody) as caught:
        await guarded({"type": "http", "method": "POST", "headers": []}, stalled, None)  # type: ignore[arg-type]
    assert caught.value.status_code == 408
