"""Fetches what a URL names, and tells whoever asked nothing about our network: every failure reads the same.

Against server-side request forgery: the URL is parsed once, its host looked up once, every address of it must be
public, and the connection goes to an address that was checked, under the name that was asked for. Each redirect is a
new URL that goes the same way. Proxies of the environment are not used. What a file is, its bytes say.
"""

import asyncio
import contextlib
import functools
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import httpcore

from penstock.errors import FetchFailed, InvalidInput
from penstock.fetch.body import unpack
from penstock.fetch.network import GuardedNetwork, Resolve, SystemResolver
from penstock.fetch.options import FetchOptions
from penstock.fetch.targets import Refused, Target, parse_target

logger = logging.getLogger(__name__)

Accept: TypeAlias = Callable[[str, bytes, str | None], str]
"""(name, first bytes, declared type) to the media type; raises `InvalidInput` for one that is not wanted."""

HEAD_BYTES = 64 * 1024
"""What `Accept` is given."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ASKED = (
    (b"user-agent", b"penstock"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"identity"),
    (b"connection", b"close"),
)
_FAILED = (
    "The URL could not be fetched. It must be an http or https URL of a public host that this server may fetch from, "
    "and lead to a file of a type and size that is taken here. Check it, or send the file itself."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file on its way. `url` is where it was found in the end, `name` a label from it, `media_type` what it is."""

    url: str
    name: str
    media_type: str
    blocks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A whole file."""

    url: str
    name: str
    media_type: str
    data: bytes


class Fetcher:
    """The one way to files at URLs. `resolve` and `dialer` stand for the network, where tests need another one."""

    def __init__(
        self,
        options: FetchOptions,
        *,
        resolve: Resolve | None = None,
        dialer: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._options = options
        self._system = SystemResolver(options.max_at_once)
        self._network = GuardedNetwork(
            resolve or self._system,
            dialer or httpcore.AnyIOBackend(),
            connect_s=options.connect_s,
            allow_private=options.allow_private,
        )
        if tls is not None:
            self._tls = tls
        self._turns = asyncio.Semaphore(options.max_at_once)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._system.close()

    async def fetch(self, url: str, *, accept: Accept, max_bytes: int | None = None) -> Fetched:
        """The whole file in memory. Raises `FetchFailed`."""
        async with self.open(url, accept=accept, max_bytes=max_bytes) as download:
            data = b"".join([block async for block in download.blocks])
        return Fetched(url=download.url, name=download.name, media_type=download.media_type, data=data)

    @contextlib.asynccontextmanager
    async def open(self, url: str, *, accept: Accept, max_bytes: int | None = None) -> AsyncIterator[Download]:
        """The file as it comes, to be read within the block: `blobs.put(download.blocks)`.

        `max_bytes` can only lower the limit of the options. Raises `FetchFailed`, also while it is read; its message is
        always the same. `retryable` is true where a public server failed, so that another try may help.
        """
        if not self._options.enabled:
            raise FetchFailed("This server fetches nothing from URLs (PENSTOCK_FETCH__ENABLED). Send the file itself.")
        limit = min(self._options.max_bytes, max_bytes or self._options.max_bytes)
        try:
            async with (
                asyncio.timeout(self._options.timeout_s) as time_limit,
                self._turns,
                self._follow(url, limit) as (target, response),
                _unpacked(response, limit) as blocks,
            ):
                yield await _download(target, _header(response, b"content-type") or None, blocks, accept)
        except TimeoutError as exc:
            if not time_limit.expired():
                raise
            raise _failed(url, f"not done within {self._options.timeout_s:g} s", retryable=True) from exc
        except Refused as exc:
            raise _failed(url, str(exc)) from exc
        except _Status as exc:
            raise _failed(url, f"status {exc.status}", retryable=exc.status in {429, 500, 502, 503, 504}) from exc
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, ssl.SSLError) as exc:
            raise _failed(url, f"{type(exc).__name__}: {exc}", retryable=True) from exc

    @contextlib.asynccontextmanager
    async def _follow(self, url: str, limit: int) -> AsyncIterator[tuple[Target, httpcore.Response]]:
        """The reply with status 200 at the end of the redirects, each of which is checked like the first URL."""
        target = parse_target(url, self._options)
        for _ in range(self._options.max_redirects + 1):
            async with self._get(target) as response:
                if response.status == 200:
                    _check_length(response, limit)
                    yield target, response
                    return
                location = _header(response, b"location")
                if response.status not in _REDIRECTS or not location:
                    raise _Status(response.status)
            target = parse_target(location, self._options, base=target)
        raise Refused("too many redirects")

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    @contextlib.asynccontextmanager
    async def _get(self, target: Target) -> AsyncIterator[httpcore.Response]:
        """One request on a connection of its own."""
        async with (
            httpcore.AsyncConnectionPool(self._tls, max_keepalive_connections=0, network_backend=self._network) as pool,
            pool.stream(
                "GET",
                httpcore.URL(
                    scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path
                ),
                headers=[(b"host", target.authority.encode()), *_ASKED],
                extensions={"timeout": self._timeouts},
            ) as response,
        ):
            yield response

    @property
    def _timeouts(self) -> dict[str, float]:
        idle_s, connect_s = self._options.idle_s, self._options.connect_s
        return {"connect": connect_s, "read": idle_s, "write": idle_s, "pool": connect_s}


class _Status(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def _unpacked(response: httpcore.Response, limit: int) -> contextlib.aclosing[AsyncGenerator[bytes, None]]:
    return contextlib.aclosing(unpack(response.aiter_stream(), _header(response, b"content-encoding"), limit))


async def _download(target: Target, declared: str | None, blocks: AsyncIterator[bytes], accept: Accept) -> Download:
    """Reads as much as it takes to know what the file is."""
    head = bytearray()
    async for block in blocks:
        head += block
        if len(head) >= HEAD_BYTES:
            break
    try:
        media_type = accept(target.file_name, bytes(head[:HEAD_BYTES]), declared)
    except InvalidInput as exc:
        raise Refused(f"not a file that is wanted: {exc.message}") from exc
    return Download(url=target.url, name=target.file_name, media_type=media_type, blocks=_chain(bytes(head), blocks))


async def _chain(head: bytes, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for block in blocks:
        yield block


def _check_length(response: httpcore.Response, limit: int) -> None:
    length = _header(response, b"content-length")
    if length.isdecimal() and (len(length) > 18 or int(length) > limit):
        raise Refused(f"{length[:20]} bytes, more than {limit}")


def _header(response: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _failed(url: str, why: str, *, retryable: bool = False) -> FetchFailed:
    logger.info("Not fetched: %s (%s)", repr(url.partition("?")[0][:200]), why)
    return FetchFailed(_FAILED, retryable=retryable)
