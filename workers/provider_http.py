"""One HTTP session for all providers, and what is seen on the wire of the attempt that uses it."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp

KEEPALIVE_S = 60
DNS_CACHE_S = 60


@dataclass(kw_only=True)
class Exchange:
    """What is known of an attempt's one request. status and headers: of the provider's answer, whatever its body.

    is_ours: it goes through our session, so that what was not seen was not sent.
    """

    is_ours: bool = False
    started: bool = False
    sent: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


current: ContextVar[Exchange | None] = ContextVar("provider_exchange", default=None)
"""The exchange of the attempt that this task makes."""


class SecondRequest(aiohttp.ClientError):
    """A library wanted to ask again, or to follow a redirect, with a request that is already at the provider."""


def open_session() -> aiohttp.ClientSession:
    """A session for the running loop; cookies are never kept, since all customers share it."""
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_sent)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=DNS_CACHE_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
        trace_configs=[trace],
        middlewares=[_once],
    )


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    exchange = current.get()
    if exchange is None:
        return await handler(request)
    if exchange.sent:
        raise SecondRequest("an attempt is one request")
    exchange.started = True
    response = await handler(request)
    exchange.status, exchange.headers = response.status, response.headers
    return response


async def _sent(_: aiohttp.ClientSession, __: SimpleNamespace, ___: aiohttp.TraceRequestHeadersSentParams) -> None:
    exchange = current.get()
    if exchange is not None:
        exchange.sent = True
