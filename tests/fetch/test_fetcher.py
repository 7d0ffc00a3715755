"""The guarded fetcher: what it brings, and everything that it must not be talked into (case 28)."""

import asyncio
import gzip
import logging
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from penstock.errors import FetchFailed, UnsupportedMedia
from penstock.fetch import Fetched, Fetcher, FetchOptions
from penstock.testing.network import PUBLIC, PUBLIC6, FakeNetwork, FileServer
from penstock.testing.network import http_reply as http
from penstock.testing.network import redirect_reply as redirect

pytestmark = pytest.mark.case(28)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HOSTS: dict[str, Sequence[Sequence[str]]] = {"files.example": [[PUBLIC]], "other.example": [[PUBLIC6]]}


def anything(name: str, head: bytes, declared: str | None) -> str:
    return declared or "unknown"


def images(name: str, head: bytes, declared: str | None) -> str:
    if not head.startswith(b"\x89PNG"):
        raise UnsupportedMedia(f"{name} is no image")
    return "image/png"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server whose certificate is of files.example, and for a client that trusts it."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=files.example"
    command += f" -addext subjectAltName=DNS:files.example -keyout {folder}/key.pem -out {folder}/certificate.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return theirs, ssl.create_default_context(cafile=str(folder / "certificate.pem"))


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer().running() as running:
        running.replies["/a.txt"] = http(b"hello")
        yield running


async def fetch(server: FileServer, url: str, *, network: FakeNetwork | None = None, **options: object) -> Fetched:
    net = network or FakeNetwork(HOSTS, server.port)
    async with Fetcher(FetchOptions(**options), resolve=net.resolve, dialer=net) as fetcher:
        return await fetcher.fetch(url, accept=anything)


async def refuse(server: FileServer, url: str, *, network: FakeNetwork | None = None, **options: object) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        await fetch(server, url, network=network, **options)
    return caught.value


async def test_a_file_of_a_public_host(server: FileServer) -> None:
    network = FakeNetwork(HOSTS, server.port)
    fetched = await fetch(server, "http://Files.Example./a.txt#part", network=network)
    assert (fetched.data, fetched.media_type, fetched.name) == (b"hello", "text/plain", "a.txt")
    assert fetched.url == "http://files.example/a.txt"
    assert network.dialled == [(PUBLIC, 80)]
    assert b"host: files.example\r\n" in server.requests[0]


async def test_names_come_from_the_path_and_are_mere_labels(server: FileServer) -> None:
    server.replies["/d/%E6%8A%A5%E5%91%8A.pdf?x=/y"] = http(b"%PDF-1.7")
    assert (await fetch(server, "http://files.example/d/报告.pdf?x=/y")).name == "报告.pdf"


async def test_large_files_come_block_by_block(server: FileServer) -> None:
    body = bytes(range(256)) * 4096
    server.replies["/big"] = http(body)
    network = FakeNetwork(HOSTS, server.port)
    async with (
        Fetcher(FetchOptions(), resolve=network.resolve, dialer=network) as fetcher,
        fetcher.open("http://files.example/big", accept=anything) as download,
    ):
        blocks = [block async for block in download.blocks]
    assert b"".join(blocks) == body
    assert max(map(len, blocks)) <= 256 * 1024


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_packed_bodies_are_unpacked(server: FileServer, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"hello " * 100)
    server.replies["/p"] = http(packed, content_encoding="gzip" if pack is gzip.compress else "deflate")
    assert (await fetch(server, "http://files.example/p")).data == b"hello " * 100


async def test_redirects_are_followed_each_looked_up_anew(server: FileServer) -> None:
    network = FakeNetwork(HOSTS, server.port)
    server.replies["/1"] = redirect("//other.example/2")
    server.replies["/2"] = redirect("a.txt", status=308)
    assert (await fetch(server, "http://files.example/1", network=network)).url == "http://other.example/a.txt"
    assert network.looked_up == ["files.example", "other.example", "other.example"]
    assert network.dialled == [(PUBLIC, 80), (PUBLIC6, 80), (PUBLIC6, 80)]


async def test_tls_is_of_the_name_not_of_the_address(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    theirs, ours = contexts
    asked: list[str | None] = []
    theirs.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with FileServer().running(tls=theirs) as server:
        server.replies["/a"] = http(b"secret")
        network = FakeNetwork(HOSTS, server.port)
        async with Fetcher(FetchOptions(), resolve=network.resolve, dialer=network, tls=ours) as fetcher:
            assert (await fetcher.fetch("https://files.example/a", accept=anything)).data == b"secret"
            with pytest.raises(FetchFailed):
                await fetcher.fetch("https://other.example/a", accept=anything)
    assert asked == ["files.example", "other.example"]
    assert network.dialled == [(PUBLIC, 443), (PUBLIC6, 443)]


ODD_URLS = [
    "http://127.0.0.1/a.txt",
    "http://127.1/a.txt",
    "http://2130706433/a.txt",
    "http://0177.0.0.1/a.txt",
    "http://0x7f.0.0.1/a.txt",
    "http://0x7f000001/a.txt",
    "http://127.0.0.1./a.txt",
    "http://[::1]/a.txt",
    "http://[::]/a.txt",
    "http://0.0.0.0/a.txt",
    "http://0/a.txt",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/a.txt",
    "http://100.64.0.1/a.txt",
    "http://[fc00::1]/a.txt",
    "http://[fe80::1%25eth0]/a.txt",
    "http://[::ffff:127.0.0.1]/a.txt",
    "http://[::ffff:93.184.216.34]/a.txt",
    "http://[::ffff:7f00:1]/a.txt",
    "http://[64:ff9b::7f00:1]/a.txt",
    "http://files.example@127.0.0.1/a.txt",
    "http://user:pass@files.example/a.txt",
    "http://@files.example/a.txt",
    "http://files.example:80@127.0.0.1/a.txt",
    "http://127.0.0.1\\@files.example/a.txt",
    "http://files.example\\.127.0.0.1/a.txt",
    "http://files.exa\tmple/a.txt",
    "http://files.example/a.txt\r\nx: y",
    "http://files.example/a b.txt",
    " http://files.example/a.txt",
    "http://１２７.0.0.1/a.txt",
    "http://①②⑦.0.0.1/a.txt",
    "http://127。0。0。1/a.txt",
    "http://files%2eexample/a.txt",
    "http://files.example%00.evil/a.txt",
    "http:files.example/a.txt",
    "http:///files.example/a.txt",
    "http:/\\files.example/a.txt",
    "//files.example/a.txt",
    "files.example/a.txt",
    "file:///etc/passwd",
    "gopher://files.example/",
    "ftp://files.example/a.txt",
    "data:text/plain,hello",
    "dict://files.example:11211/",
    "unix:///var/run/docker.sock",
    "http+unix://files.example/a.txt",
    "http://files.example:22/a.txt",
    "http://files.example:0/a.txt",
    "http://files.example:99999/a.txt",
    "http://files.example:8O/a.txt",
    "http://-files.example/a.txt",
    "http://files..example/a.txt",
    "http://files.example/" + "a" * 5000,
    "http://" + "a" * 300 + ".example/a.txt",
    "http://localhost/a.txt",
    "http://localhost./a.txt",
    "http://nowhere.example/a.txt",
    "",
    "http://",
]


@pytest.mark.parametrize("url", ODD_URLS)
async def test_odd_urls_are_refused_before_anyone_is_dialled(server: FileServer, url: str) -> None:
    network = FakeNetwork({**HOSTS, "localhost": [["127.0.0.1", "::1"]]}, server.port)
    await refuse(server, url, network=network)
    assert network.dialled == []
    assert server.requests == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["10.0.0.5", PUBLIC],
        [PUBLIC, PUBLIC6, "::1"],
        ["::ffff:192.168.0.1"],
        ["fe80::1%2"],
        ["not an address"],
        [],
        [PUBLIC] * 100,
    ],
)
async def test_names_with_one_private_address_are_refused(server: FileServer, addresses: Sequence[str]) -> None:
    network = FakeNetwork({"mixed.example": [addresses]}, server.port)
    await refuse(server, "http://mixed.example/a.txt", network=network)
    assert network.dialled == []


async def test_rebinding_names_are_looked_up_once_and_dialled_where_checked(server: FileServer) -> None:
    network = FakeNetwork({"rebind.example": [[PUBLIC], ["127.0.0.1"]]}, server.port)
    assert (await fetch(server, "http://rebind.example/a.txt", network=network)).data == b"hello"
    assert (network.looked_up, network.dialled) == (["rebind.example"], [(PUBLIC, 80)])
    await refuse(server, "http://rebind.example/a.txt", network=network)
    assert network.dialled == [(PUBLIC, 80)]


async def test_a_redirect_to_a_name_that_turned_private_is_refused(server: FileServer) -> None:
    network = FakeNetwork({"rebind.example": [[PUBLIC], ["127.0.0.1"]]}, server.port)
    server.replies["/1"] = redirect("/a.txt")
    await refuse(server, "http://rebind.example/1", network=network)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/a.txt",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/a.txt",
        "http://user@files.example/a.txt",
        "http://private.example/a.txt",
        "http://files.example:8080/a.txt",
        "file:///etc/passwd",
        "gopher://files.example/",
        "data:text/plain,hello",
        "http:\\\\127.0.0.1\\a.txt",
        "//127.0.0.1/a.txt",
    ],
)
async def test_redirects_are_checked_like_first_urls(server: FileServer, location: str) -> None:
    network = FakeNetwork({**HOSTS, "private.example": [["192.168.1.1"]]}, server.port)
    server.replies["/1"] = redirect("/2")
    server.replies["/2"] = redirect(location)
    await refuse(server, "http://files.example/1", network=network, ports=())
    assert network.dialled == [(PUBLIC, 80), (PUBLIC, 80)]


async def test_loops_of_redirects_end(server: FileServer) -> None:
    server.replies["/1"] = redirect("/1")
    await refuse(server, "http://files.example/1")
    assert len(server.requests) == 5


async def test_redirects_from_https_to_http_are_refused(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    theirs, ours = contexts
    async with FileServer().running(tls=theirs) as server:
        server.replies["/1"] = redirect("http://files.example/a.txt")
        network = FakeNetwork(HOSTS, server.port)
        async with Fetcher(FetchOptions(), resolve=network.resolve, dialer=network, tls=ours) as fetcher:
            with pytest.raises(FetchFailed):
                await fetcher.fetch("https://files.example/1", accept=anything)
    assert network.dialled == [(PUBLIC, 443)]


async def test_proxies_of_the_environment_are_not_used(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await fetch(server, "http://files.example/a.txt")).data == b"hello"


@pytest.mark.parametrize("with_length", [True, False])
async def test_files_that_are_too_large_are_refused(server: FileServer, with_length: bool) -> None:
    reply = http(bytes(2000))
    server.replies["/big"] = reply if with_length else reply.replace(b"content-length: 2000\r\n", b"")
    await refuse(server, "http://files.example/big", max_bytes=1000)


async def test_endless_bodies_end(server: FileServer) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    server.replies["/endless"] = endless
    await refuse(server, "http://files.example/endless", max_bytes=10_000_000)


async def test_bombs_are_not_unpacked(server: FileServer) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join(bomb.compress(bytes(10**6)) for _ in range(200)) + bomb.flush()
    assert len(packed) < 300_000
    server.replies["/bomb"] = http(packed, content_encoding="gzip")
    await refuse(server, "http://files.example/bomb", max_bytes=10**6)


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"x", "gzip"), (gzip.compress(b"hello")[:-4], "gzip"), (b"x", "br"), (b"x", "gzip, gzip")]
)
async def test_bodies_that_cannot_be_unpacked_are_refused(server: FileServer, body: bytes, encoding: str) -> None:
    server.replies["/p"] = http(body, content_encoding=encoding)
    await refuse(server, "http://files.example/p")


async def test_servers_that_say_nothing_are_given_up(server: FileServer) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    server.replies |= {"/silent": silent, "/drip": dripping}
    assert (await refuse(server, "http://files.example/silent", idle_s=0.05)).retryable
    assert (await refuse(server, "http://files.example/drip", timeout_s=0.1)).retryable


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000 + b"\r\n\r\n",
        http(b"no", status=206),
        http(b"no", status=404),
        http(b"no", status=503),
        redirect(""),
    ],
)
async def test_replies_that_are_no_file_are_refused(server: FileServer, reply: bytes) -> None:
    server.replies["/x"] = reply
    await refuse(server, "http://files.example/x")


async def test_types_are_seen_not_believed(server: FileServer) -> None:
    server.replies["/lie.png"] = http(b"<html>hello", media_type="image/png")
    server.replies["/truth"] = http(PNG, media_type="text/html")
    network = FakeNetwork(HOSTS, server.port)
    async with Fetcher(FetchOptions(), resolve=network.resolve, dialer=network) as fetcher:
        with pytest.raises(FetchFailed):
            await fetcher.fetch("http://files.example/lie.png", accept=images)
        fetched = await fetcher.fetch("http://files.example/truth", accept=images)
    assert (fetched.media_type, fetched.data) == ("image/png", PNG)


async def test_all_refusals_read_the_same_and_tell_nothing(
    server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    network = FakeNetwork({**HOSTS, "intranet.example": [["10.1.2.3"]]}, server.port)
    server.replies["/1"] = redirect("http://10.1.2.3/")
    urls = ["http://intranet.example/", "http://files.example/1", "http://files.example/404", "file:///etc/passwd"]
    with caplog.at_level(logging.INFO):
        messages = {(await refuse(server, f"{url}?key=secret", network=network)).message for url in urls}
    assert len(messages) == 1
    assert "10.1.2.3" not in messages.pop()
    assert "10.1.2.3" in caplog.text, "whoever runs the server can find out why"
    assert "secret" not in caplog.text


async def test_only_hosts_of_the_list(server: FileServer) -> None:
    names: dict[str, Sequence[Sequence[str]]] = {"a.files.example": [[PUBLIC]], "evilfiles.example": [[PUBLIC]]}
    network = FakeNetwork({**HOSTS, **names}, server.port)
    options = {"allow_hosts": ("*.Files.example",), "network": network}
    await fetch(server, "http://files.example/a.txt", **options)  # type: ignore[arg-type]
    await fetch(server, "http://a.files.example/a.txt", **options)  # type: ignore[arg-type]
    for host in ("other.example", "evilfiles.example", "files.example.evil"):
        await refuse(server, f"http://{host}/a.txt", **options)  # type: ignore[arg-type]
    server.replies["/1"] = redirect("http://other.example/a.txt")
    await refuse(server, "http://files.example/1", **options)  # type: ignore[arg-type]


async def test_private_hosts_where_the_operator_says_so(server: FileServer) -> None:
    url = f"http://127.0.0.1:{server.port}/a.txt"
    async with Fetcher(FetchOptions(allow_private=True, ports=())) as fetcher:
        assert (await fetcher.fetch(url, accept=anything)).data == b"hello"
        assert (await fetcher.fetch(f"http://localhost:{server.port}/a.txt", accept=anything)).data == b"hello"
        with pytest.raises(FetchFailed):
            await fetcher.fetch("http://169.254.169.254/", accept=anything)


async def test_nothing_at_all_where_it_is_switched_off(server: FileServer) -> None:
    network = FakeNetwork(HOSTS, server.port)
    assert "ENABLED" in (await refuse(server, "http://files.example/a.txt", network=network, enabled=False)).message
    assert network.looked_up == []


async def test_cancelled_fetches_hang_up(server: FileServer) -> None:
    began = asyncio.Event()
    ended = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began.set()
        await reader.read()
        ended.set()

    server.replies["/slow"] = slow
    task = asyncio.create_task(fetch(server, "http://files.example/slow"))
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.wait_for(ended.wait(), 20)
