"""Which addresses are public: special blocks by name, and the IPv4 address inside every IPv6 form that embeds one."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)
"""Cloud metadata: refused even where an allow-list covers them."""

V4_BLOCKS = (
    ("0.0.0.0/8", "unspecified address"),
    ("10.0.0.0/8", "private address"),
    ("100.64.0.0/10", "shared address"),
    ("127.0.0.0/8", "loopback address"),
    ("169.254.0.0/16", "link-local address"),
    ("172.16.0.0/12", "private address"),
    ("192.0.0.0/24", "reserved address"),
    ("192.0.2.0/24", "documentation address"),
    ("192.88.99.0/24", "reserved address"),
    ("192.168.0.0/16", "private address"),
    ("198.18.0.0/15", "benchmarking address"),
    ("198.51.100.0/24", "documentation address"),
    ("203.0.113.0/24", "documentation address"),
    ("224.0.0.0/4", "multicast address"),
    ("240.0.0.0/4", "reserved address"),
)
V6_BLOCKS = (
    ("::/128", "unspecified address"),
    ("::1/128", "loopback address"),
    ("fc00::/7", "private address"),
    ("fe80::/10", "link-local address"),
    ("fec0::/10", "private address"),
    ("ff00::/8", "multicast address"),
    ("2001:2::/48", "benchmarking address"),
    ("2001:db8::/32", "documentation address"),
    ("3fff::/20", "documentation address"),
)
BLOCKS: Sequence[tuple[Network, str]] = [(ip_network(block), reason) for block, reason in (*V4_BLOCKS, *V6_BLOCKS)]

GLOBAL_UNICAST = IPv6Network("2000::/3")
IETF_PROTOCOLS = IPv6Network("2001::/23")

MAPPED = IPv6Network("::ffff:0:0/96")
LOW_32_BITS = tuple(map(IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""IPv4-compatible, SIIT and NAT64: the IPv4 address is the last 32 bits."""
LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
SIX_TO_FOUR = IPv6Network("2002::/16")
TEREDO = IPv6Network("2001::/32")
ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""The upper half of an ISATAP interface id, under any prefix."""


def refusal(text: str, networks: Sequence[Network]) -> str | None:
    """Why this address is refused (its class, `private address`), or None when it may be connected to."""
    try:
        address = ip_address(text)
    except ValueError:
        return "malformed address"
    if isinstance(address, IPv6Address) and address in MAPPED:
        address = IPv4Address(int(address) & 0xFFFF_FFFF)
    embedded = tuple(_embedded(address)) if isinstance(address, IPv6Address) else ()
    if address in METADATA or not METADATA.isdisjoint(embedded):
        return "metadata address"
    if any(address in network for network in networks):
        return None
    return next(filter(None, (_special(inner) for inner in embedded)), None) or _special(address)


def _special(address: Address) -> str | None:
    """The class of an address that is not public by itself, or None."""
    for block, reason in BLOCKS:
        if address in block:
            return reason
    if isinstance(address, IPv4Address) or _carrier(address):
        return None
    public = address in GLOBAL_UNICAST and address not in IETF_PROTOCOLS
    return None if public else "reserved address"


def _carrier(address: IPv6Address) -> bool:
    """Whether the whole block only carries IPv4, so that the inner address decides alone."""
    return any(address in block for block in (*LOW_32_BITS, LOCAL_NAT64, SIX_TO_FOUR, TEREDO))


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    bits = int(address)
    if any(address in block for block in LOW_32_BITS) and bits > 1:
        yield IPv4Address(bits & 0xFFFF_FFFF)
    if address in LOCAL_NAT64:
        yield from _local_nat64(bits)
    if address in SIX_TO_FOUR:
        yield IPv4Address(bits >> 80 & 0xFFFF_FFFF)
    if address in TEREDO:
        yield IPv4Address(bits >> 64 & 0xFFFF_FFFF)
        yield IPv4Address(~bits & 0xFFFF_FFFF)
    if bits >> 32 & 0xFFFF_FFFF in ISATAP:
        yield IPv4Address(bits & 0xFFFF_FFFF)


def _local_nat64(bits: int) -> Iterator[IPv4Address]:
    """Every place RFC 6052 lets an operator put the IPv4 address inside the /48; bits 64 to 71 are always skipped."""
    without_skipped = (bits >> 64) << 56 | bits & (1 << 56) - 1
    for prefix in (48, 56, 64):
        yield IPv4Address(without_skipped >> (120 - prefix - 32) & 0xFFFF_FFFF)
    yield IPv4Address(bits & 0xFFFF_FFFF)
