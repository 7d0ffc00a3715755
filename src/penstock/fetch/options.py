"""The options of the fetch room."""

from pydantic import BaseModel, ConfigDict, Field, field_validator


class FetchOptions(BaseModel):
    """What is fetched from URLs that callers name, and from where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="false: nothing is fetched from any URL")
    allow_hosts: tuple[str, ...] = Field(
        (), description="only from these: example.com, or *.example.com with all below it; empty: any public host"
    )
    allow_private: bool = Field(
        False,
        description="also from loopback and private addresses (never from link-local ones, where clouds keep keys)",
    )
    ports: tuple[int, ...] = Field((80, 443), description="only from these ports; empty: any")
    max_bytes: int = Field(100 * 1024 * 1024, gt=0, description="of a file, unpacked; the use may set a lower limit")
    timeout_s: float = Field(30.0, gt=0, description="for all of a fetch, redirects included")
    connect_s: float = Field(5.0, gt=0, description="to look up a name, and to connect to one address of it")
    idle_s: float = Field(10.0, gt=0, description="between two pieces of a reply")
    max_redirects: int = Field(4, ge=0)
    max_at_once: int = Field(16, ge=1, description="fetches at once in a process; others wait")

    @field_validator("allow_hosts")
    @classmethod
    def _lower(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if strange := [host for host in hosts if not host or set(host) & set("/:@ ")]:
            raise ValueError(f"{strange[0]!r} is not a host's name: write it without scheme, port and path")
        return tuple(host.lower().rstrip(".") for host in hosts)
