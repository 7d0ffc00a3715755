"""Who is calling. Decided once a request, before any of its body is read.

While no API key exists and we listen on a loopback address, whoever can reach us may do everything, but a web page
that somebody happens to look at may not: see `refuse_foreign_page`. Once a key exists, every route but the two probes
needs one, in `Authorization: Bearer …` or `X-API-Key: …`. A key that was revoked still counts as existing, so that
revoking the last one does not open the door.
"""

import hashlib
import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock.api.problems import penstock_problem
from penstock.api.ttl_cache import TtlCache
from penstock.errors import Forbidden, PenstockError, Unauthorized
from penstock.ledger.base import ApiKey, Ledger
from penstock.types import DEFAULT_TENANT

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Compared with the very path that the router matches, never with a URL made from the Host header."""

KEY_CACHE_S: Final = 3.0
"""How long a key that was revoked, or a first key that was made, may go unnoticed."""

WRITE: Final = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a request may see (one tenant) and do. A key without scopes may do everything that its tenant can."""

    tenant: str
    key_id: str | None = None
    scopes: Sequence[str] = ()

    @property
    def may_write(self) -> bool:
        return not self.scopes or WRITE in self.scopes


class Authenticator:
    """Looks keys up in the ledger, and keeps what it found for a few seconds."""

    def __init__(self, ledger: Ledger, host: str, origins: Collection[str]) -> None:
        self._ledger = ledger
        self._host = host
        self._origins = origins
        self._keys: TtlCache[bytes, ApiKey | None] = TtlCache(ttl_s=KEY_CACHE_S, max_entries=1024)
        self._any_key: TtlCache[None, bool] = TtlCache(ttl_s=KEY_CACHE_S, max_entries=1)

    async def authenticate(self, headers: Headers) -> Caller:
        """Raises `Unauthorized`, or `Forbidden` for a foreign web page."""
        if not await self._any_key.get(None, self._key_exists):
            if not is_loopback(self._host):
                raise Unauthorized("No API key exists yet. Make one on the server: `penstock keys create NAME`.")
            refuse_foreign_page(headers, self._host, self._origins)
            return Caller(tenant=DEFAULT_TENANT)
        secret = credential(headers)
        digest = hashlib.sha256(secret.encode()).digest()
        key = await self._keys.get(digest, lambda: self._ledger.find_api_key(secret))
        if key is None:
            raise Unauthorized("This API key is not known here, or it was revoked.")
        return Caller(tenant=key.tenant, key_id=key.id, scopes=key.scopes)

    async def _key_exists(self) -> bool:
        return bool(await self._ledger.list_api_keys(None))


class AuthMiddleware:
    """Puts the `Caller` into the request's scope, or answers with the refusal."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope):
            await self._app(scope, receive, send)
            return
        try:
            scope["penstock.caller"] = await self._authenticator.authenticate(Headers(scope=scope))
        except PenstockError as exc:
            response = await penstock_problem(Request(scope), exc)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _reader(request: Request) -> Caller:
    found = request.scope["penstock.caller"]
    assert isinstance(found, Caller)
    return found


async def _writer(caller: Annotated[Caller, Depends(_reader)]) -> Caller:
    if not caller.may_write:
        raise Forbidden("This API key may only read. Use one with the scope `write`.")
    return caller


Reader = Annotated[Caller, Depends(_reader)]
Writer = Annotated[Caller, Depends(_writer)]


def credential(headers: Headers) -> str:
    """The one secret that the headers carry. `Unauthorized` when there is none, or more than one."""
    found = set()
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("This Authorization scheme is not understood here: use `Bearer`.")
        found.add(token.strip())
    found.update(value.strip() for value in headers.getlist("x-api-key"))
    if len(found) > 1:
        raise Unauthorized("The request carries two different API keys. Send one.")
    secret = next(iter(found), "")
    if not secret:
        raise Unauthorized("An API key is needed: send `Authorization: Bearer …` or `X-API-Key: …`.")
    return secret


def refuse_foreign_page(headers: Headers, host: str, origins: Collection[str]) -> None:
    """Without keys, what protects a server on loopback is that only this machine reaches it; and a browser on this
    machine runs code of every page it shows. `Forbidden` when a page of another site, not one of `origins`, sends the
    request, or when the Host header is a domain name of the internet (one that was made to point at us: DNS rebinding).
    """
    name = _host_name(headers.get("host", ""))
    if "." in name and not (_is_ip(name) or name == host or name.endswith(".localhost")):
        raise Forbidden(
            f"Without an API key only this machine may call, under a local name, not {name[:100]!r}. "
            "Make a key on the server: `penstock keys create NAME`."
        )
    origin = headers.get("origin")
    if origin in origins:
        return
    own = origin is None or _origin_host(origin) == headers.get("host")
    if not own or headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise Forbidden("Without an API key, pages of other sites may not call. Make a key, or set api.cors_origins.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than `localhost` counts as open."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin_host(origin: str) -> str | None:
    """`host:port` of an Origin header; None for `null` and for what is no URL."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _host_name(host: str) -> str:
    """The Host header without its port and brackets, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_open(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS and scope["method"] in {"GET", "HEAD"}
