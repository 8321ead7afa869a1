"""The webhook sender: one POST to exactly the checked address, under one deadline; no redirects, cookies or proxies."""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from shared import egress
from shared.egress_lookup import RecentLookups
from shared.settings import VERSION, Network
from workers import webhook_connection
from workers.kept_connections import KEEPALIVE_S, MAX_IDLE, KeptConnections
from workers.webhook_connection import MAX_HEAD_BYTES, MAX_KEPT_BYTES, Connection, HeadTooLarge, Reply

USER_AGENT = f"Waybill/{VERSION}"
CONNECT_TIMEOUT_S = 5.0
"""For TCP and TLS to one address."""
BODY_TIMEOUT_S = 5.0
"""For reading the answer's body, after its head came in time."""
MAX_TEXT = 200
MAX_ADDRESSES_TRIED = 3
MAX_HEADERS = 50
MAX_HEADER_VALUE = 500
MAX_HEADER_NAME = 100
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG")
"""OpenSSL's words for an answer that is none of TLS."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What came of one POST. `status` when a head came; `error_class` when it failed or is no 2xx.

    error_class: dns, url_refused, connect, tls, timeout, protocol, body_too_slow, status.
    dns_ms, connect_ms (TCP and TLS; None on a kept connection), first_byte_ms (from the request sent): each a stretch
    of its own; None for one that did not end. duration_ms: all, with the body.
    response_headers: of a head, at most 50, names in lower case, values at most 500 characters.
    """

    duration_ms: int
    status: int | None = None
    error_class: str | None = None
    error: str | None = None
    head: str | None = None
    retry_after: str | None = None
    abort: bool = False
    dns_ms: int | None = None
    connect_ms: int | None = None
    first_byte_ms: int | None = None
    response_headers: dict[str, str] | None = None
    redirect_target: str | None = None


class _Failed(Exception):
    """The attempt ended without a head; arguments: class and text."""


@dataclass(slots=True)
class _Clock:
    """The stretches of one attempt, in ms, as far as it came."""

    started: float = field(default_factory=time.monotonic)
    dns_ms: int | None = None
    connect_ms: int | None = None


@dataclass(slots=True)
class _Asked:
    """A request that was sent: where to, on which connection, when, and what comes back."""

    target: egress.Target
    address: str
    connection: Connection
    reply: Reply
    at: float


class WebhookSender:
    """Sends webhooks. One per process; `close` when done. Tests pass their own `lookup` and `tls`."""

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        http: bool,
        lookup: egress.Lookup | None = None,
        tls: ssl.SSLContext | None = None,
        body_timeout_s: float = BODY_TIMEOUT_S,
        max_idle: int = MAX_IDLE,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        self._networks = tuple(networks)
        self._http = http
        self._lookup = lookup or RecentLookups(egress.system_lookup)
        self._tls = tls or httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._body_timeout_s = body_timeout_s
        self._idle = KeptConnections(max_idle, keepalive_s)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, timeout_s: float) -> Response:
        """One POST; never raises for what a receiver, a name or a network does.

        headers: names in lower case. timeout_s: over DNS, connect, TLS, send and the answer's head together.
        """
        watch = _Clock()
        try:
            async with asyncio.timeout(timeout_s):
                asked = await self._head(url, headers, body, watch)
        except _Failed as failed:
            error_class, error = failed.args
        except TimeoutError:
            error_class, error = "timeout", f"no answer within {timeout_s:g} s"
        else:
            return await self._answer(asked, watch)
        return Response(
            duration_ms=_ms_since(watch.started),
            error_class=error_class,
            error=error,
            dns_ms=watch.dns_ms,
            connect_ms=watch.connect_ms,
        )

    async def close(self) -> None:
        """Close the kept connections."""
        await self._idle.close()

    async def _head(self, url: str, headers: Mapping[str, str], body: bytes, watch: _Clock) -> _Asked:
        """Ask, on a kept connection if there is one, and wait for the head. Raises _Failed."""
        target = await self._target(url)
        watch.dns_ms = _ms_since(watch.started)
        request = _request(target, headers, body)
        addresses = target.addresses[:MAX_ADDRESSES_TRIED]
        kept = self._kept(target, addresses)
        if kept is not None:
            asked = await self._ask(target, kept[0], kept[1], request)
            if asked.reply.status is not None or asked.reply.first_byte_at is not None:
                return _headed(asked)
            addresses = (kept[0],)  # the receiver had closed it: nobody's failure
        address, connection = await self._connect(target, addresses, watch)
        return _headed(await self._ask(target, address, connection, request))

    async def _target(self, url: str) -> egress.Target:
        try:
            return await egress.resolve(url, self._networks, http=self._http, lookup=self._lookup)
        except egress.UrlRefused as refused:
            raise _Failed("url_refused", refused.reason) from None
        except egress.NotResolved:
            raise _Failed("dns", "the host name does not resolve") from None

    def _kept(self, target: egress.Target, addresses: Sequence[str]) -> tuple[str, Connection] | None:
        for address in addresses:
            connection = self._idle.take(target, address)
            if connection is not None:
                return address, connection
        return None

    async def _connect(self, target: egress.Target, addresses: Sequence[str], watch: _Clock) -> tuple[str, Connection]:
        """Connect to the first address that answers. Raises _Failed."""
        tls = self._tls if target.scheme == "https" else None
        started = time.monotonic()
        failed = _Failed("connect", "connection refused or unreachable")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    connection = await webhook_connection.connect(address, target.port, tls=tls, name=target.host)
            except TimeoutError:
                failed = _Failed("timeout", f"no connection within {CONNECT_TIMEOUT_S:g} s")
            except ssl.SSLError as error:
                raise _tls_failure(error) from None
            except OSError:
                failed = _Failed("connect", "connection refused or unreachable")
            else:
                watch.connect_ms = _ms_since(started)
                return address, connection
        raise failed

    async def _ask(self, target: egress.Target, address: str, connection: Connection, request: bytes) -> _Asked:
        """Send, and wait for the head or the connection's end; a connection whose head is not waited for is closed."""
        asked = _Asked(target, address, connection, connection.ask(request), time.monotonic())
        try:
            await asked.reply.head
        except asyncio.CancelledError:
            connection.abort()
            raise
        return asked

    async def _answer(self, asked: _Asked, watch: _Clock) -> Response:
        reply = asked.reply
        slow = not reply.body.done() and not await self._body(asked)
        self._idle.give(asked.target, asked.address, asked.connection)
        status = reply.status or 0
        headers = _shown(reply.headers)
        location = headers.get("location") if 300 <= status < 400 else None
        error_class, error = (None, None) if 200 <= status < 300 else ("status", _status_text(status, location))
        if slow:
            error_class, error = "body_too_slow", f"the answer's body took longer than {self._body_timeout_s:g} s"
        return Response(
            duration_ms=_ms_since(watch.started),
            status=status,
            error_class=error_class,
            error=error,
            head=_text(reply.kept),
            retry_after=headers.get("retry-after"),
            abort=headers.get("webhook-delivery", "").strip().lower() == "abort-message",
            dns_ms=watch.dns_ms,
            connect_ms=watch.connect_ms,
            first_byte_ms=round(((reply.first_byte_at or asked.at) - asked.at) * 1000),
            response_headers=dict(list(headers.items())[:MAX_HEADERS]),
            redirect_target=location,
        )

    async def _body(self, asked: _Asked) -> bool:
        """Whether the body ended in time; the connection of one that did not is closed."""
        try:
            async with asyncio.timeout(self._body_timeout_s):
                await asked.reply.body
        except TimeoutError:
            asked.connection.abort()
            return False
        except asyncio.CancelledError:
            asked.connection.abort()
            raise
        return True


def all_headers(authority: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """What a request says in all; authority: of its URL, as `egress.Form` has it."""
    return {
        "accept": "*/*",
        **headers,
        "host": authority,
        "user-agent": USER_AGENT,
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }


def _request(target: egress.Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """The name goes into Host and SNI, the address only into the connection: nothing below resolves anything."""
    sent = all_headers(target.authority, headers, body)
    lines = [f"POST {target.path} HTTP/1.1", *[f"{name}: {value}" for name, value in sent.items()]]
    head = "\r\n".join(lines)
    if head.count("\n") != len(sent) or head.count("\r") != len(sent) or "\0" in head:
        raise _Failed("protocol", "a header of the endpoint cannot be sent")
    return b"%b\r\n\r\n%b" % (head.encode(errors="replace"), body)


def _headed(asked: _Asked) -> _Asked:
    """The same when its head came. Raises _Failed."""
    if asked.reply.status is not None:
        return asked
    asked.connection.abort()
    error = asked.reply.head.result()
    if isinstance(error, HeadTooLarge):
        raise _Failed("protocol", f"the answer's head is larger than {MAX_HEAD_BYTES:,} bytes")
    if isinstance(error, ssl.SSLError):
        raise _tls_failure(error)
    raise _Failed("protocol", "the connection ended without an answer, or the answer is not HTTP")


def _tls_failure(error: ssl.SSLError) -> _Failed:
    why = getattr(error, "verify_message", "") or error.reason or "failed"
    if error.reason in NO_TLS:
        return _Failed("tls", "TLS: the port does not speak TLS")
    return _Failed("tls", _text(f"TLS: {why}".encode(), MAX_TEXT))


def _shown(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name in lower case; one that came several times is joined with commas."""
    shown: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = _text(raw_name, MAX_HEADER_NAME).lower()
        value = _text(raw_value, MAX_HEADER_VALUE)
        shown[name] = f"{shown[name]}, {value}"[:MAX_HEADER_VALUE] if name in shown else value
    return shown


def _status_text(status: int, location: str | None) -> str:
    return f"answered {status}, not followed: {location}"[:MAX_TEXT] if location else f"answered {status}"


def _text(raw: bytes, most: int = MAX_KEPT_BYTES) -> str:
    """Text Postgres can hold, of bytes that may be anything."""
    return raw[:most].decode(errors="replace").replace("\0", "\ufffd")


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
