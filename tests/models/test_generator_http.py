"""HTTP as providers and proxies really speak it, against a server that says exactly the bytes it is told."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock.models.openai_http import BrokenReply, ConnectFailed, Upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"


@asynccontextmanager
async def server(
    *replies: bytes, tls: ssl.SSLContext | None = None, heard: list[bytes] | None = None
) -> AsyncIterator[int]:
    """Says one of `replies` to each request, whatever it is, and then hangs up."""
    left = list(replies)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while left and (request := await reader.read(65536)):
                if heard is not None:
                    heard.append(request)
                writer.write(left.pop(0))
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def post(upstream: Upstream) -> tuple[int, bytes]:
    body = b""
    async with asyncio.timeout(30), upstream.post("/chat", b"{}", {"authorization": "Bearer k"}) as reply:
        while piece := await reply.read():
            body += piece
        return reply.status, body


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (CHUNKED, 200, b"abc"),
        (HEAD + b"content-length: 3\r\n\r\nabc", 200, b"abc"),
        (HEAD + b"\r\nabc", 200, b"abc"),
        (b"HTTP/1.0 503 Busy\r\n\r\nabc", 503, b"abc"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + CHUNKED, 200, b"abc"),
    ],
)
async def test_framings(reply: bytes, status: int, body: bytes) -> None:
    heard: list[bytes] = []
    async with server(reply, heard=heard) as port:
        upstream = Upstream(f"http://127.0.0.1:{port}/v1/", connect_s=5)
        assert await post(upstream) == (status, body)
        await upstream.close()
    assert heard[0].startswith(b"POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % port)
    assert b"authorization: Bearer k\r\n" in heard[0]
    assert heard[0].endswith(b"\r\n\r\n{}")


@pytest.mark.case(24)
@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        HEAD,
        HEAD + b"content-length: 4\r\n\r\nabc",
        CHUNKED[:-5],
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    ],
)
async def test_replies_that_are_none(reply: bytes) -> None:
    async with server(reply) as port:
        upstream = Upstream(f"http://127.0.0.1:{port}", connect_s=5)
        with pytest.raises(BrokenReply):
            await post(upstream)
        await upstream.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for `localhost`, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {folder}/key.pem -out {folder}/cert.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return folder / "both.pem"


@pytest.fixture
def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path) -> Callable[[], ssl.SSLContext]:
    return lambda: ssl.create_default_context(cafile=str(certificate))


@pytest.mark.case(22)
async def test_tls_is_checked(serving: ssl.SSLContext, trusting: Callable[[], ssl.SSLContext]) -> None:
    async with server(CHUNKED, tls=serving) as port:
        upstream = Upstream(f"https://localhost:{port}", connect_s=5, tls=trusting())
        assert await post(upstream) == (200, b"abc")
        await upstream.close()
        for url, tls in ((f"https://localhost:{port}", None), (f"https://127.0.0.1:{port}", trusting())):
            with pytest.raises(ConnectFailed, match="TLS"):
                await post(Upstream(url, connect_s=5, tls=tls))


async def test_goes_through_a_proxy(
    serving: ssl.SSLContext, trusting: Callable[[], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    finished = asyncio.Event()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer), return_exceptions=True)
        inner_writer.close()
        finished.set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async with server(CHUNKED, tls=serving) as port, await asyncio.start_server(proxy, "127.0.0.1", 0) as front:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{front.sockets[0].getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        upstream = Upstream(f"https://localhost:{port}", connect_s=5, tls=trusting())
        assert await post(upstream) == (200, b"abc")
        await upstream.close()
        await finished.wait()
    assert asked == [f"CONNECT localhost:{port} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n".encode()]


async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    for reply, why in (
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "refused: .* 407"),
        (b"?", "speak HTTP"),
    ):
        async with server(reply) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            with pytest.raises(ConnectFailed, match=why):
                await post(Upstream("https://example.invalid", connect_s=5))


@pytest.mark.case(23)
async def test_connecting_has_its_own_time_out() -> None:
    # The backlog takes the connection; nobody answers to TLS.
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectFailed, match=r"within 0\.1 s"):
        await post(Upstream(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_s=0.1))


@pytest.mark.case(26)
async def test_what_nobody_reads_waits_at_the_provider() -> None:
    body = b"x" * 40_000_000  # more than the sockets hold
    written = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        written.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        upstream = Upstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", connect_s=5)
        async with asyncio.timeout(30), upstream.post("/chat", b"{}", {}) as reply:
            got = len(await reply.read())
            for _ in range(2000):
                await asyncio.sleep(0)
            assert not written.is_set()
            while piece := await reply.read():
                got += len(piece)
        assert got == len(body)
        await upstream.close()


async def test_a_read_that_timed_out_can_be_tried_again() -> None:
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(HEAD + b"content-length: 2\r\n\r\na")
        await go_on.wait()
        writer.write(b"b")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        upstream = Upstream(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", connect_s=5)
        now = asyncio.get_running_loop().time
        async with asyncio.timeout(30), upstream.post("/chat", b"{}", {}) as reply:
            assert await reply.read(by=now() + 20) == b"a"
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await reply.read(by=now() + 0.01)
            go_on.set()
            assert await reply.read(by=now() + 20) == b"b"
            assert await reply.read() == b""
        await upstream.close()
