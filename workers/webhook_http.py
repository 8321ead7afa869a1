"""The webhook sender: one POST to exactly the checked address, under one deadline; no redirects, cookies or proxies."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx

from shared import egress
from shared.settings import VERSION, Network

USER_AGENT = f"Waybill/{VERSION}"
CONNECT_TIMEOUT_S = 5.0
BODY_TIMEOUT_S = 5.0
"""For reading the answer's body, after its head came in time."""
MAX_BODY_BYTES = 20_000
MAX_KEPT_BYTES = 1_000
MAX_TEXT = 200

KEEPALIVE_S = 2.0
"""Below what servers commonly keep open: a connection that they close while we write is a failed attempt."""
MAX_IDLE_LINES = 100
MAX_ADDRESSES_TRIED = 3

Key = tuple[str, str, int, str]
"""Scheme, name, port, address. TLS was checked for the name, so no other name may use the connection."""

NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of one POST. `status` when a head came; `error_class` when it failed or is no 2xx.

    error_class: dns, url_refused, connect, tls, timeout, protocol, body_too_slow, status.
    """

    duration_ms: int
    status: int | None = None
    error_class: str | None = None
    error: str | None = None
    head: str | None = None
    retry_after: str | None = None
    abort: bool = False


class _Failed(Exception):
    """The attempt ended without a head; arguments: class and text."""


class WebhookSender:
    """Sends webhooks. One per process; `close` when done. Tests pass their own `lookup` and `tls`."""

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        http: bool,
        lookup: egress.Lookup = egress.system_lookup,
        tls: ssl.SSLContext | None = None,
        body_timeout_s: float = BODY_TIMEOUT_S,
        idle_lines: int = MAX_IDLE_LINES,
    ) -> None:
        self._networks = tuple(networks)
        self._http = http
        self._lookup = lookup
        self._tls = tls or httpx.create_ssl_context()
        self._body_timeout_s = body_timeout_s
        self._idle_lines = idle_lines
        self._idle: dict[Key, list[httpx.AsyncHTTPTransport]] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, *, timeout_s: float) -> Answer:
        """One POST; never raises for what a receiver, a name or a network does.

        timeout_s: over DNS, connect, TLS, send and the answer's head together.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s) as deadline, self._head(url, headers, body) as response:
                deadline.reschedule(None)
                return await self._answer(response, started)
        except _Failed as failed:
            error_class, error = failed.args
        except TimeoutError:
            error_class, error = "timeout", f"no answer within {timeout_s:g} s"
        return Answer(duration_ms=_ms_since(started), error_class=error_class, error=error)

    async def close(self) -> None:
        """Close the kept connections."""
        await self._close_beyond(0)

    @asynccontextmanager
    async def _head(self, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[httpx.Response]:
        try:
            target = await egress.resolve(url, self._networks, http=self._http, lookup=self._lookup)
        except egress.UrlRefused as refused:
            raise _Failed("url_refused", refused.reason) from None
        except egress.NotResolved:
            raise _Failed("dns", "the host name does not resolve") from None
        addresses = target.addresses[:MAX_ADDRESSES_TRIED]
        for address in addresses:
            async with self._line(target, address) as line:
                try:
                    response = await line.handle_async_request(_request(target, address, headers, body))
                except httpx.TransportError as error:
                    if address != addresses[-1] and isinstance(error, NO_CONNECTION) and not _tls_error(error):
                        continue
                    raise _failure(error) from None
                try:
                    yield response
                finally:
                    await response.aclose()
                return

    @asynccontextmanager
    async def _line(self, target: egress.Target, address: str) -> AsyncIterator[httpx.AsyncHTTPTransport]:
        """A line of its own for one request: an idle one to this address of this name, else a new one."""
        key = (target.scheme, target.host, target.port, address)
        idle = self._idle.get(key)
        line = idle.pop() if idle else self._new_line()
        try:
            yield line
        finally:
            self._idle.setdefault(key, []).append(line)
            await self._close_beyond(self._idle_lines)

    def _new_line(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_S)
        return httpx.AsyncHTTPTransport(verify=self._tls, limits=limits)

    async def _close_beyond(self, most: int) -> None:
        """Close idle lines, those to whom nothing was sent longest first."""
        self._idle = {key: lines for key, lines in self._idle.items() if lines}
        while sum(map(len, self._idle.values())) > most:
            key = next(key for key, lines in self._idle.items() if lines)
            await self._idle[key].pop(0).aclose()

    async def _answer(self, response: httpx.Response, started: float) -> Answer:
        ok = 200 <= response.status_code < 300
        error_class, error = (None, None) if ok else ("status", _status_text(response))
        kept = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                await _read(response, kept)
        except TimeoutError:
            error_class, error = "body_too_slow", f"the answer's body took longer than {self._body_timeout_s:g} s"
        except httpx.TransportError:
            pass  # the head said it all; what was read is kept
        return Answer(
            duration_ms=_ms_since(started),
            status=response.status_code,
            error_class=error_class,
            error=error,
            head=_text(bytes(kept)),
            retry_after=response.headers.get("retry-after"),
            abort=response.headers.get("webhook-delivery", "").strip().lower() == "abort-message",
        )


def _request(target: egress.Target, address: str, headers: Mapping[str, str], body: bytes) -> httpx.Request:
    """The name goes into Host and SNI, the address into the URL: nothing below resolves anything.

    headers: names in lower case.
    """
    return httpx.Request(
        "POST",
        httpx.URL(scheme=target.scheme, host=address, port=target.port, raw_path=target.path.encode()),
        headers={
            "accept": "*/*",
            **headers,
            "host": target.authority,
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",
            "content-type": "application/json",
        },
        content=body,
        extensions={"sni_hostname": target.host, "timeout": {"connect": CONNECT_TIMEOUT_S}},
    )


async def _read(response: httpx.Response, kept: bytearray) -> None:
    """Read at most MAX_BODY_BYTES, keep the first MAX_KEPT_BYTES; what is longer is cut off with its connection."""
    left = MAX_BODY_BYTES
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as chunks:
        async for chunk in chunks:
            kept += chunk[: MAX_KEPT_BYTES - len(kept)]
            left -= len(chunk)
            if left <= 0:
                return


def _failure(error: httpx.TransportError) -> _Failed:
    tls = _tls_error(error)
    if tls is not None:
        return _Failed(
            "tls", _text(f"TLS: {getattr(tls, 'verify_message', '') or tls.reason or 'failed'}".encode(), MAX_TEXT)
        )
    if isinstance(error, httpx.ConnectTimeout):
        return _Failed("timeout", f"no connection within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(error, httpx.ConnectError):
        return _Failed("connect", "connection refused or unreachable")
    if isinstance(error, httpx.TimeoutException):
        return _Failed("timeout", "timed out")
    return _Failed("protocol", "the connection ended without an answer, or the answer is not HTTP")


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _status_text(response: httpx.Response) -> str:
    location = response.headers.get("location")
    if 300 <= response.status_code < 400 and location:
        return _text(f"answered {response.status_code}, not followed: {location}".encode(), MAX_TEXT)
    return f"answered {response.status_code}"


def _text(raw: bytes, most: int = MAX_KEPT_BYTES) -> str:
    """Text Postgres can hold, of bytes that may be anything."""
    return raw[:most].decode(errors="replace").replace("\0", "\ufffd")


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
