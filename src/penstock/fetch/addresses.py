"""Which addresses of the internet may be dialled for a stranger.

From the IANA special-purpose address registries (RFC 6890 and what followed), written out because `ipaddress.is_global`
differs between versions of Python and takes multicast and mapped addresses for global.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"))
) + tuple(map(IPv6Network, ("::1/128", "fc00::/7")))
"""Loopback, and networks of one's own."""

_NEVER = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "168.63.129.16/32",  # Azure's platform service: a public address with private content
            "169.254.0.0/16",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.175.48.0/24",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_UNICAST6 = IPv6Network("2000::/3")
_NEVER6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")))
_NAT64 = IPv6Network("64:ff9b::/96")
_METADATA6 = IPv6Network("fd00:ec2::/32")
"""Amazon's instance metadata over IPv6, inside the range of private networks."""


def is_allowed(address: Address, *, allow_private: bool = False) -> bool:
    """Whether the address is that of a public host; with `allow_private` also of a private one or of this machine.

    An IPv4 address inside an IPv6 one (mapped, or behind a NAT64) counts as what it is inside.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or (IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None)
        if inner is not None:
            return is_allowed(inner, allow_private=allow_private)
    if any(address in network for network in _PRIVATE if network.version == address.version):
        return allow_private and not (isinstance(address, IPv6Address) and address in _METADATA6)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NEVER)
    return address in _UNICAST6 and not address.scope_id and not any(address in network for network in _NEVER6)


def parse_address(text: str) -> Address | None:
    """The address in its usual spelling; None for anything else, the odd spellings of C libraries included."""
    try:
        return ip_address(text)
    except ValueError:
        return None
