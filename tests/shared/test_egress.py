"""The URL policy: hostile literals, names that resolve to private addresses, forms, allow-lists."""

from collections.abc import Sequence
from ipaddress import ip_network

import anyio
import pytest

from shared import egress
from shared.egress import NotResolved, UrlRefused
from tests.hostile_urls import FORMS, HOSTS, NAMES, Zone, resolver

PUBLIC = ("8.8.8.8", "172.32.0.1", "100.63.255.255", "[2606:4700:4700::1111]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]")


@pytest.mark.parametrize(("host", "reason"), HOSTS.items())
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


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in NAMES.items()])
async def test_name_is_refused_for_any_one_of_its_addresses(name: str, reason: str):
    with pytest.raises(UrlRefused) as refused:
        await egress.resolve(f"https://{name}/", (), http=False, lookup=resolver)

    assert refused.value.reason == reason


async def test_full_address_needs_no_lookup():
    target = await egress.resolve("https://8.8.8.8/", (), http=False, lookup=Zone([]))

    assert target.addresses == ("8.8.8.8",)


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
