"""URLs that no webhook may go to: one table for the policy, the routes that store a URL and the sender."""

from collections.abc import Sequence

from shared import egress
from shared.egress import NotResolved

HOSTS = {
    "0.0.0.0": "unspecified address",
    "0.1.2.3": "unspecified address",
    "10.0.0.1": "private address",
    "10.255.255.255": "private address",
    "100.64.0.1": "shared address",
    "100.127.255.255": "shared address",
    "127.0.0.1": "loopback address",
    "127.255.255.254": "loopback address",
    "169.254.0.1": "link-local address",
    "172.16.0.1": "private address",
    "172.31.255.255": "private address",
    "192.0.0.1": "reserved address",
    "192.0.2.1": "documentation address",
    "192.88.99.1": "reserved address",
    "192.168.1.1": "private address",
    "198.18.0.1": "benchmarking address",
    "198.19.255.255": "benchmarking address",
    "198.51.100.1": "documentation address",
    "203.0.113.1": "documentation address",
    "224.0.0.1": "multicast address",
    "239.255.255.255": "multicast address",
    "240.0.0.1": "reserved address",
    "255.255.255.255": "reserved address",
    # metadata services
    "169.254.169.254": "metadata address",
    "169.254.170.2": "metadata address",
    "100.100.100.200": "metadata address",
    "192.0.0.192": "metadata address",
    "168.63.129.16": "metadata address",
    "169.254.170.23": "metadata address",
    "[fd00:ec2::23]": "metadata address",
    "[fd20:ce::254]": "metadata address",
    "[fd00:ec2::254]": "metadata address",
    # other spellings of IPv4, which getaddrinfo understands
    "2130706433": "loopback address",
    "0x7f000001": "loopback address",
    "0x7f.1": "loopback address",
    "0177.0.0.1": "loopback address",
    "127.1": "loopback address",
    "0": "unspecified address",
    "2852039166": "metadata address",
    "0xa9fea9fe": "metadata address",
    "①②⑦.0.0.1": "loopback address",
    "127。0。0。1": "loopback address",
    "127.0.0.1.": "loopback address",
    "017700000001": "loopback address",
    "0x7f.0x0.0x0.0x1": "loopback address",
    "127.0.1": "loopback address",
    "0300.0250.1.1": "private address",
    "3232235777": "private address",
    "0251.0376.0251.0376": "metadata address",
    "\uff11\uff12\uff17\uff0e\uff10\uff0e\uff10\uff0e\uff11": "loopback address",
    "\uff11\uff10\uff61\uff10\uff61\uff10\uff61\uff11": "private address",
    "127.0.0.①": "loopback address",
    "localhost": "loopback address",
    "LOCALHOST": "loopback address",
    "localhost.": "loopback address",
    # IPv6
    "[::]": "unspecified address",
    "[::1]": "loopback address",
    "[0:0:0:0:0:0:0:1]": "loopback address",
    "[fc00::1]": "private address",
    "[fdff::1]": "private address",
    "[fe80::1]": "link-local address",
    "[fec0::1]": "private address",
    "[ff02::1]": "multicast address",
    "[100::1]": "reserved address",
    "[2001:db8::1]": "documentation address",
    "[3fff::1]": "documentation address",
    "[2001:2::1]": "benchmarking address",
    "[2001:10::1]": "reserved address",
    "[4000::1]": "reserved address",
    "[5f00::1]": "reserved address",
    # IPv4 inside IPv6: mapped, compatible, SIIT, NAT64 /96 and /48, 6to4, Teredo, ISATAP
    "[::ffff:127.0.0.1]": "loopback address",
    "[0:0:0:0:0:FFFF:7F00:1]": "loopback address",
    "[::ffff:10.0.0.1]": "private address",
    "[::ffff:a9fe:a9fe]": "metadata address",
    "[::127.0.0.1]": "loopback address",
    "[::169.254.169.254]": "metadata address",
    "[::ffff:0:7f00:1]": "loopback address",
    "[::ffff:0:a9fe:a9fe]": "metadata address",
    "[64:ff9b::7f00:1]": "loopback address",
    "[64:ff9b::a9fe:a9fe]": "metadata address",
    "[64:ff9b::10.0.0.1]": "private address",
    "[64:ff9b:1:a9fe:a9:fe00::]": "metadata address",
    "[64:ff9b:1:c0a8:1:100::]": "private address",
    "[64:ff9b:1::a9fe:a9fe]": "metadata address",
    "[2002:7f00:1::]": "loopback address",
    "[2002:a9fe:a9fe::1]": "metadata address",
    "[2002:c0a8:101::]": "private address",
    "[2001:0:7f00:1::]": "loopback address",
    "[2001:0:808:808:0:0:80ff:fffe]": "loopback address",
    "[2606:4700::5efe:10.0.0.1]": "private address",
    "[2606:4700::200:5efe:a9fe:a9fe]": "metadata address",
    "[2606:4700::5efe:7f00:1]": "loopback address",
}
"""Hosts that are addresses in some spelling, or a name of this machine, and the class that refuses them."""

FORMS = {
    "ftp://example.com/": "scheme must be https",
    "file:///etc/passwd": "scheme must be https",
    "http://example.com/": "scheme must be https",
    "//example.com/": "scheme must be https",
    "example.com": "scheme must be https",
    "https://user@example.com/": "user info is not allowed",
    "https://user:secret@example.com/": "user info is not allowed",
    "https://example.com/#part": "a fragment is not allowed",
    "https://example.com/#": "a fragment is not allowed",
    "gopher://example.com/": "scheme must be https",
    "dict://example.com:11211/": "scheme must be https",
    "ldap://example.com/": "scheme must be https",
    "ws://example.com/": "scheme must be https",
    "data:text/plain,x": "scheme must be https",
    "javascript:alert(1)": "scheme must be https",
    "": "scheme must be https",
    "https://127.0.0.1:80@example.com/": "user info is not allowed",
    "https://example.com@127.0.0.1/": "user info is not allowed",
    "https://@127.0.0.1/": "user info is not allowed",
    "https://example.com#@127.0.0.1/": "a fragment is not allowed",
    "https://127.0.0.1\\@example.com/": "forbidden character",
    "https://127.0.0.1%00.example.com/": "malformed host",
    "https://%31%32%37.0.0.1/": "malformed host",
    "https://[127.0.0.1]/": "malformed URL",
    "https://[::ffff:127.0.0.1%251]/": "zone in an address",
    "https://127.0.0.1:-1/": "malformed URL",
    "https://[::1]:22/": "port must be 443, 80 or 1024-65535",
    "https://example.com:6379.evil/": "malformed URL",
    "https://example.com:0/": "port must be 443, 80 or 1024-65535",
    "https://example.com:22/": "port must be 443, 80 or 1024-65535",
    "https://example.com:1023/": "port must be 443, 80 or 1024-65535",
    "https://example.com:65536/": "malformed URL",
    "https://example.com:x/": "malformed URL",
    "https:///path": "malformed host",
    "https://": "malformed host",
    "https://exa mple.com/": "forbidden character",
    "https://example.com/\r\nX: y": "forbidden character",
    "https://example.com\t.evil/": "forbidden character",
    "https://example.com\\@evil.com/": "forbidden character",
    "https://[fe80::1%25eth0]/": "zone in an address",
    "https://[::1": "malformed URL",
    "https://-example.com/": "malformed host",
    "https://ex..ample.com/": "malformed host",
    "https://exa%6dple.com/": "malformed host",
    f"https://{'a' * 64}.com/": "malformed host",
    f"https://{'.'.join(['a' * 60] * 5)}/": "malformed host",
    "https://example.com/" + "a" * 2000: "longer than 2,000 characters",
}
"""URLs whose form is refused where only https is allowed."""

NAMES = {
    "private.example": (["10.0.0.1"], "private address"),
    "loopback.example": (["127.0.0.1"], "loopback address"),
    "metadata.example": (["169.254.169.254"], "metadata address"),
    "metadata6.example": (["fd00:ec2::254"], "metadata address"),
    "one-of-many.example": (["8.8.8.8", "2606:4700::1111", "127.0.0.1"], "loopback address"),
    "far-down.example": (["8.8.8.8"] * 40 + ["192.168.0.1"], "private address"),
    "mapped.example": (["8.8.8.8", "::ffff:127.0.0.1"], "loopback address"),
    "nat64.example": (["64:ff9b::7f00:1"], "loopback address"),
    "scoped.example": (["fe80::1%eth0"], "link-local address"),
    "nonsense.example": (["not an address"], "malformed address"),
}
"""Names, what they resolve to, and why they are refused."""


class Zone:
    """A resolver under the test's control: each lookup of a name takes its next answer, the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise NotResolved(host)
        return answer


async def resolver(host: str, port: int) -> Sequence[str]:
    """Knows NAMES, and leaves the spellings of addresses to the system."""
    return NAMES[host][0] if host in NAMES else await egress.system_lookup(host, port)
