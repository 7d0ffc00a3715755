"""Addresses: public ones may be dialled, all others not, however they are written."""

from ipaddress import ip_address

import pytest

from penstock.fetch.addresses import is_allowed

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "223.5.5.5", "2606:4700::1111", "2400:3200::1", "64:ff9b::808:808"]
PRIVATE = ["127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1"]
PRIVATE += ["100.100.100.200", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "198.18.0.1"]
NEVER = ["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255"]
NEVER += ["240.0.0.1", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "168.63.129.16"]
NEVER += ["::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "2001::1", "2001:db8::1", "2002:7f00:1::"]
NEVER += [
    "fd00:ec2::254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "::7f00:1",
    "100::1",
    "5f00::",
]


@pytest.mark.case(28)
@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_may_be_dialled(text: str) -> None:
    assert is_allowed(ip_address(text))


@pytest.mark.case(28)
@pytest.mark.parametrize("text", [*PRIVATE, *NEVER])
def test_no_other_address_may(text: str) -> None:
    assert not is_allowed(ip_address(text))


@pytest.mark.case(28)
@pytest.mark.parametrize("text", PRIVATE)
def test_private_ones_may_where_the_operator_says_so(text: str) -> None:
    assert is_allowed(ip_address(text), allow_private=True)


@pytest.mark.case(28)
@pytest.mark.parametrize("text", NEVER)
def test_link_local_and_reserved_ones_never(text: str) -> None:
    assert not is_allowed(ip_address(text), allow_private=True)
