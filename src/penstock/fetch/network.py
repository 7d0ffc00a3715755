"""From a checked name to a connection: looked up once, every address checked, and one of exactly these dialled."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import httpcore

from penstock.fetch.addresses import is_allowed, parse_address
from penstock.fetch.targets import Refused

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a name, in the order in which they are best tried. Raises `OSError`."""

MAX_ADDRESSES = 32
_TRIED = 3


class SystemResolver:
    """The operating system's, in threads of its own: a look-up that hangs holds up no other kind of work."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="fetch-dns")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Dials for httpcore, which keeps the name for TLS and the `Host` header. Knows of no proxy."""

    def __init__(
        self,
        resolve: Resolve,
        dialer: httpcore.AsyncNetworkBackend,
        *,
        connect_s: float,
        allow_private: bool,
    ) -> None:
        self._resolve = resolve
        self._dialer = dialer
        self._connect_s = connect_s
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises `Refused`, or httpcore's errors when no address answers."""
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in (await self._addresses(host, port))[:_TRIED]:
            try:
                return await self._dialer.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        assert failure is not None
        raise failure

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """One address that is not public, and none of them is taken."""
        if parse_address(host) is not None:
            found: Sequence[str] = [host]
        else:
            try:
                async with asyncio.timeout(self._connect_s):
                    found = await self._resolve(host, port)
            except (OSError, UnicodeError) as exc:  # a TimeoutError is an OSError
                raise Refused(f"the name {host} cannot be looked up: {exc or type(exc).__name__}") from exc
        if not 0 < len(found) <= MAX_ADDRESSES:
            raise Refused(f"the name {host} has {len(found)} addresses")
        for text in found:
            address = parse_address(text)
            if address is None or not is_allowed(address, allow_private=self._allow_private):
                raise Refused(f"the name {host} has the address {text}, which is not public")
        return found

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 - the library's signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        raise Refused(f"a local socket: {path}")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
