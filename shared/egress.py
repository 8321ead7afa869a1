"""Where Waybill may connect for a customer: the URL's form, one resolution, every address of it checked.

check_form(url)  no DNS: length, characters, scheme, user info, fragment, port, host
accept(url)      form and addresses; a name that does not resolve (yet) is accepted: registration and submit
resolve(url)     form and addresses; the Target to connect to: every attempt
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from shared.egress_addresses import Network, refusal

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""All addresses of a host, as text. Raises NotResolved. Tests pass their own."""

MAX_URL = 2000
MAX_HOST = 253
RESOLVE_TIMEOUT_S = 5.0
MAX_ADDRESSES = 32

DEFAULT_PORTS = {"https": 443, "http": 80}
FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
PATH_SAFE = "/?:@!$&'()*+,;=-._~%[]"

_threads = ThreadPoolExecutor(max_workers=32, thread_name_prefix="resolve")


class UrlRefused(Exception):
    """The URL breaks a rule. `reason` names the class (`private address`), never what was resolved."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotResolved(Exception):
    """The host name has no address now; it may have one later."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A URL whose form is allowed; `host` is ASCII, lower case, without brackets or trailing dot."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Target(Form):
    """A URL with its checked addresses: connect to one of these, never to the name."""

    addresses: tuple[str, ...]


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """The addresses getaddrinfo gives, on threads of our own so that slow names starve nothing else."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(_threads, _getaddrinfo, host, port)
    except (OSError, UnicodeError) as error:
        raise NotResolved(host) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _getaddrinfo(host: str, port: int) -> list[tuple[object, object, object, object, tuple[object, ...]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]


def check_form(url: str, *, http: bool) -> Form:
    """The parts of a URL whose form is allowed. Raises UrlRefused.

    http: whether plain http is allowed beside https.
    """
    if len(url) > MAX_URL:
        raise UrlRefused("longer than 2,000 characters")
    if FORBIDDEN_CHARACTERS.search(url):
        raise UrlRefused("forbidden character")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlRefused("malformed URL") from None
    if parts.scheme not in DEFAULT_PORTS or (parts.scheme == "http" and not http):
        raise UrlRefused("scheme must be https or http" if http else "scheme must be https")
    if "@" in parts.netloc:
        raise UrlRefused("user info is not allowed")
    if "#" in url:
        raise UrlRefused("a fragment is not allowed")
    port = DEFAULT_PORTS[parts.scheme] if port is None else port
    if port not in DEFAULT_PORTS.values() and not 1024 <= port <= 65_535:
        raise UrlRefused("port must be 443, 80 or 1024-65535")
    path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    return Form(scheme=parts.scheme, host=_host(parts.hostname or ""), port=port, path=quote(path, safe=PATH_SAFE))


def _host(text: str) -> str:
    """The ASCII form of a host; Unicode digits and dots become plain ones here, so that every later reader agrees."""
    if ":" in text:
        if "%" in text:
            raise UrlRefused("zone in an address")
        try:
            return str(ip_address(text))
        except ValueError:
            raise UrlRefused("malformed host") from None
    try:
        host = text.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        raise UrlRefused("malformed host") from None
    if len(host) > MAX_HOST or not HOST_NAME.fullmatch(host):
        raise UrlRefused("malformed host")
    return host


async def resolve(
    url: str,
    networks: Iterable[Network],
    *,
    http: bool,
    lookup: Lookup = system_lookup,
    timeout_s: float = RESOLVE_TIMEOUT_S,
) -> Target:
    """Resolve once and check every address. Raises UrlRefused; NotResolved when there is no answer in time.

    networks: private networks that are allowed; metadata addresses are refused even inside them.
    """
    form = check_form(url, http=http)
    addresses = [form.host] if _is_address(form.host) else await _addresses(form, lookup, timeout_s)
    opened = tuple(networks)
    for address in addresses:
        reason = refusal(address, opened)
        if reason is not None:
            raise UrlRefused(reason)
    return Target(
        scheme=form.scheme,
        host=form.host,
        port=form.port,
        path=form.path,
        addresses=tuple(addresses[:MAX_ADDRESSES]),
    )


def _is_address(host: str) -> bool:
    """Whether a host is an address in its full form; short, octal and the like are left to the resolver."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def _addresses(form: Form, lookup: Lookup, timeout_s: float) -> Sequence[str]:
    """What the name resolves to now. Raises NotResolved."""
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await lookup(form.host, form.port)
    except TimeoutError:
        raise NotResolved(form.host) from None
    if not addresses:
        raise NotResolved(form.host)
    return addresses


async def accept(
    url: str,
    networks: Iterable[Network],
    *,
    http: bool,
    lookup: Lookup = system_lookup,
) -> None:
    """Check a URL that is to be stored. Raises UrlRefused; a name without an address fails at its attempt."""
    try:
        await resolve(url, networks, http=http, lookup=lookup)
    except NotResolved:
        return
