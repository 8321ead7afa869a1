"""The URL policy: hostile literals, names that resolve to private addresses, forms, allow-lists."""

from collections.abc import Sequence
from ipaddress import ip_network

import anyio
import pytest

from shared import egress
from shared.egress import NotResolved, UrlRefused

REFUSED = {
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
    "[::ffff:a9fe:a9fe]": "metadata address",
    "[::127.0.0.1]": "loopback address",
    "[::169.254.169.254]": "metadata address",
    "[::ffff:0:7f00:1]": "loopback address",
    "[::ffff:0:a9fe:a9fe]": "metadata address",
    "[64:ff9b::7f00:1]": "loopback address",
    "[64:ff9b::a9fe:a9fe]": "metadata address",
    "[64:ff9b:1:a9fe:a9:fe00::]": "metadata address",
    "[64:ff9b:1:c0a8:1:100::]": "private address",
    "[64:ff9b:1::a9fe:a9fe]": "metadata address",
    "[2002:7f00:1::]": "loopback address",
    "[2002:a9fe:a9fe::1]": "metadata address",
    "[2001:0:7f00:1::]": "loopback address",
    "[2001:0:808:808:0:0:80ff:fffe]": "loopback address",
    "[2606:4700::5efe:10.0.0.1]": "private address",
    "[2606:4700::200:5efe:a9fe:a9fe]": "metadata address",
    "[2606:4700::5efe:7f00:1]": "loopback address",
}

PUBLIC = ("8.8.8.8", "172.32.0.1", "100.63.255.255", "[2606:4700:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]")

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


@pytest.mark.parametrize(("host", "reason"), REFUSED.items())
async def test_address_that_is_not_public_is_refused_and_the_reason_names_only_its_class(host: str, reason: str):
    with pytest.raises(UrlRefused) as refused:
        await egress.resolve(f"https://{host}/hook", (), http=False)

    assert refused.value.reason == reason


@pytest.mark.parametrize("host", PUBLIC)
async def test_public_address_is_its_own_target(host: str):
    target = await egress.resolve(f"https://{host}:8443/hook?a=1", (), http=False)

    assert len(target.addresses) == 1
    assert target.path == "/hook?a=1"
    assert target.port == 8443


@pytest.mark.parametrize(("url", "reason"), FORMS.items())
def test_form_is_refused_without_a_lookup(url: str, reason: str):
    with pytest.raises(UrlRefused) as refused:
        egress.check_form(url, http=False)

    assert refused.value.reason == reason


async def test_one_private_address_among_public_ones_refuses_the_name():
    with pytest.raises(UrlRefused, match="private address"):
        await egress.resolve("https://example.com/", (), http=False, lookup=Zone(["8.8.8.8", "10.0.0.1"]))


async def test_name_that_changes_its_address_is_refused_at_the_next_resolution():
    zone = Zone(["8.8.8.8"], ["127.0.0.1"])
    first = await egress.resolve("https://rebind.example/", (), http=False, lookup=zone)

    assert first.addresses == ("8.8.8.8",)
    assert zone.asked == ["rebind.example"]
    with pytest.raises(UrlRefused, match="loopback"):
        await egress.resolve("https://rebind.example/", (), http=False, lookup=zone)


async def test_name_without_an_address_is_accepted_for_storing_but_not_resolved():
    await egress.accept("https://later.example/", (), http=False, lookup=Zone([]))

    with pytest.raises(NotResolved):
        await egress.resolve("https://later.example/", (), http=False, lookup=Zone([]))


async def test_accept_refuses_what_resolve_refuses():
    with pytest.raises(UrlRefused, match="metadata address"):
        await egress.accept("https://meta.example/", (), http=False, lookup=Zone(["169.254.169.254"]))


async def test_slow_resolver_counts_as_no_address():
    async def never(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(NotResolved):
        await egress.resolve("https://slow.example/", (), http=False, lookup=never, timeout_s=0.01)


async def test_allow_list_opens_exactly_its_networks():
    networks = (ip_network("10.1.0.0/16"),)
    allowed = await egress.resolve("https://10.1.2.3/", networks, http=False)

    assert allowed.addresses == ("10.1.2.3",)
    for host in ("10.2.0.1", "127.0.0.1", "[2002:a01:203::]", "[64:ff9b::a01:203]"):
        with pytest.raises(UrlRefused):
            await egress.resolve(f"https://{host}/", networks, http=False)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]"]
)
async def test_metadata_is_refused_even_inside_an_allowed_network(host: str):
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    with pytest.raises(UrlRefused, match="metadata address"):
        await egress.resolve(f"https://{host}/", everything, http=False)


async def test_plain_http_needs_permission():
    target = await egress.resolve("http://8.8.8.8/", (), http=True)

    assert (target.scheme, target.port, target.authority) == ("http", 80, "8.8.8.8")


def test_target_speaks_ascii_and_keeps_the_path():
    form = egress.check_form("https://BÜCHER.example:8443/ä/b%20c?q=ü&x=%41", http=False)

    assert form.host == "xn--bcher-kva.example"
    assert form.authority == "xn--bcher-kva.example:8443"
    assert form.path == "/%C3%A4/b%20c?q=%C3%BC&x=%41"
    assert egress.check_form("https://[2606:4700::1]/", http=False).authority == "[2606:4700::1]"
