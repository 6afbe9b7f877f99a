"""Where a request comes from: an IP address in its one form, however a connection or a proxy writes it."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"  # no address; the word is that of RFC 7239, §6.2
MAPPED = IPv6Network("::ffff:0:0/96")
HOP = re.compile(r'"?(?:\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[\d.]+):\d+|(?P<plain>[^"]*))"?')


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, without port, brackets, quotes and zone; None if it is none.

    An IPv4 address mapped into IPv6 is returned as IPv4.
    """
    match = HOP.fullmatch(text.strip(" \t"))
    if not match:
        return None
    try:
        found = ip_address((match["v6"] or match["v4"] or match["plain"] or "").partition("%")[0])
    except ValueError:
        return None
    return found if isinstance(found, IPv4Address) or found.ipv4_mapped is None else found.ipv4_mapped


def read_network(text: str) -> Network:
    """The network that `text` names; one address is a network too, and IPv4 mapped into IPv6 is IPv4.

    Raises ValueError.
    """
    found = ip_network(text, strict=False)
    if isinstance(found, IPv4Network) or not found.subnet_of(MAPPED):
        return found
    return IPv4Network((int(found.network_address) & 0xFFFF_FFFF, found.prefixlen - 96))


def origin_of(address: str) -> str:
    """The customer behind an address such as `request.origin`.

    For IPv6 that is its /64: a customer has at least one (RFC 6177), and may change addresses within it at will.
    """
    found = read_address(address)
    if isinstance(found, IPv6Address):
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found or UNKNOWN)
