"""How a client behaves: where the server is, how long it waits, how often it tries again."""

import os
from dataclasses import dataclass, field

import httpx

from penstock.errors import ConfigError

URL_VARIABLE = "PENSTOCK_URL"
KEY_VARIABLE = "PENSTOCK_API_KEY"
DEFAULT_URL = "http://127.0.0.1:7733"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Empty: from `PENSTOCK_URL` and `PENSTOCK_API_KEY`. Raises `ConfigError` for what is no URL or no key.

    `timeout_s` bounds one wait for the server's next bytes, not a whole call. A call whose connection fails is made at
    most `attempts` times, one that the server refuses for now (429, 503) at most `refused_attempts` times. The pause
    between two is what `Retry-After` says, else exponential with full jitter; over `max_pause_s` it is not waited.
    """

    url: str = ""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    attempts: int = 4
    refused_attempts: int = 4
    first_pause_s: float = 0.2
    max_pause_s: float = 30.0

    def __post_init__(self) -> None:
        url = self.url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise ConfigError(f"{url!r} is not a URL ({exc}). Give the server's, such as {DEFAULT_URL}.") from exc
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ConfigError(f"{url!r} is not an http(s) URL. Give the server's, such as {DEFAULT_URL}.")
        object.__setattr__(self, "url", url.rstrip("/"))
        if self.api_key is None:
            object.__setattr__(self, "api_key", (os.environ.get(KEY_VARIABLE) or "").strip() or None)
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError(f"The API key ({KEY_VARIABLE}) holds characters that no key has: copy it again.")

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every request."""
        key = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"accept": "application/json", "user-agent": "penstock-client", **key}

    @property
    def is_local(self) -> bool:
        """Plain HTTP to this machine: no proxy is asked, no certificates are loaded (that takes longer than a call)."""
        url = httpx.URL(self.url)
        return url.scheme == "http" and url.host in {"localhost", "127.0.0.1", "::1"}

    def timeout(self, read_s: float | None = None) -> httpx.Timeout:
        return httpx.Timeout(read_s or self.timeout_s, connect=self.connect_timeout_s)
