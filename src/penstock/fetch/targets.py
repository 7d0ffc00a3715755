"""A URL taken apart once, into the very parts that are checked and dialled. What is odd about it is refused."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from penstock.fetch.addresses import Address, is_allowed, parse_address
from penstock.fetch.options import FetchOptions

MAX_URL_CHARS = 4096
DEFAULT_PORTS = {"http": 80, "https": 443}

_SCHEME = re.compile(r"(?i)https?://[^/]")
_USER = re.compile(r"[^/?#]*//[^/?#]*@")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\\<>\"`{}|^]")
"""Control characters, blanks, marks that turn text, and what parsers read in different ways."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


class Refused(Exception):
    """Not to be fetched. The text is for our log: it may tell of the inside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`host` is a name in small letters without a final dot, or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: bytes
    address: Address | None

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path.decode('ascii')}"

    @property
    def file_name(self) -> str:
        """The last part of the path, or the host where that is empty: a mere label."""
        name = unquote(self.path.partition(b"?")[0].rpartition(b"/")[2].decode("ascii"))
        return name or self.host


def parse_target(url: str, options: FetchOptions, *, base: Target | None = None) -> Target:
    """The parts of a URL (relative ones only with a `base`). Raises `Refused` for what may not be fetched.

    The name's addresses are not looked at yet, but for a URL whose host is an address.
    """
    if len(url) > MAX_URL_CHARS or _FORBIDDEN.search(url):
        raise Refused("the URL is too long, or has characters that no URL has")
    try:
        parsed = httpx.URL(base.url).join(url) if base else httpx.URL(url)
        host, port = parsed.raw_host.decode("ascii").lower(), parsed.port
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise Refused(f"the URL cannot be parsed: {exc}") from exc
    if (not base and not _SCHEME.match(url)) or parsed.scheme not in DEFAULT_PORTS:
        raise Refused("neither http nor https")
    if parsed.userinfo or _USER.match(url):
        raise Refused("a user's name in the URL")
    target = Target(
        scheme=parsed.scheme,
        host=host.removesuffix("."),
        port=DEFAULT_PORTS[parsed.scheme] if port is None else port,
        path=parsed.raw_path,
        address=parse_address(host),
    )
    _check(target, options)
    if base:
        _check_redirect(base, target)
    return target


def _check(target: Target, options: FetchOptions) -> None:
    if options.ports and target.port not in options.ports:
        raise Refused(f"port {target.port} is not allowed")
    if not 0 < target.port < 65536:
        raise Refused("no such port")
    if options.allow_hosts and not any(_fits(target.host, pattern) for pattern in options.allow_hosts):
        raise Refused(f"the host {target.host} is not on the list")
    if target.address is not None:
        if ":" in target.host and getattr(target.address, "ipv4_mapped", None) is not None:
            raise Refused("an IPv4 address in the clothes of an IPv6 one")
        if not is_allowed(target.address, allow_private=options.allow_private):
            raise Refused(f"the address {target.address} is not public")
    elif not _NAME.fullmatch(target.host):
        raise Refused("not a host's name")
    elif _NUMBER.fullmatch(target.host.rpartition(".")[2]):
        raise Refused("a number that some would read as an address")


def _fits(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) or host == pattern[2:]
    return host == pattern


def _check_redirect(source: Target, target: Target) -> None:
    if source.scheme == "https" and target.scheme == "http":
        raise Refused("a redirect from https to http")
    if target.port not in {source.port, DEFAULT_PORTS[target.scheme]}:
        raise Refused("a redirect to another port")
