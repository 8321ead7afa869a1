"""The request id: the client's own when it is printable, else a new one; on every response and log line.

And the log line of each request, which leads from the id to the job and the call whose ids the workers log; and its
place in the counts of /metrics.
"""

import re
import time
from typing import Any
from uuid import UUID

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gateway.paths import PREFIX
from api.metrics import Requests
from shared import ids, log

logger = log.get(__name__)

ACCEPTABLE = re.compile(r"[\x21-\x7e]{1,128}")
CLIENT_CLOSED = 499
LONG_S = 0.2
"""After this long it is worth asking whether the client is still there."""
MOST_METHOD = 16
PROBES = ("/health", f"{PREFIX}/health", "/metrics")
SENT_AS_THEY_COME = ("text/event-stream", "application/x-ndjson")
TOLD = "waybill.told"
BEGAN = "waybill.began"
REQUEST_ID = "waybill.request_id"


class RequestId:
    """ASGI middleware; outermost, so that errors of every layer carry the header and are logged and counted."""

    def __init__(self, app: ASGIApp, *, logs: bool = True, requests: Requests | None = None) -> None:
        self.app = app
        self._logs = logs
        self._requests = requests or Requests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id bound to the log context; write its line at the end."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if ACCEPTABLE.fullmatch(asked) else ids.prefixed("req", ids.new())
        exchange = _Exchange(scope, receive, send, request_id, self._requests)
        scope[REQUEST_ID] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, exchange.receive, exchange.send)
            finally:
                exchange.end()
                if self._logs:
                    exchange.write_line()


def began_at(scope: Scope) -> float:
    """When the request came, as `time.perf_counter()` counts."""
    began: float = scope[BEGAN]
    return began


def tell(request: Request, **fields: str | None) -> None:
    """Put what is known of a request on its log line: never a key, nor text that a client wrote."""
    known = {name: value for name, value in fields.items() if value is not None}
    request.scope.setdefault(TOLD, {}).update(known)


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, requests: Requests) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._requests = requests
        self._began = scope[BEGAN] = time.perf_counter()
        self._ended = self._began
        # Who raises before an answer begins is answered by Starlette's outer layer.
        self._status = 500
        self._call_id: str | None = None
        self._is_answered = False
        self._is_gone = False
        self._is_stream = False
        requests.begin()

    @property
    def _route(self) -> str | None:
        """Its route and not its path, so that nothing a client wrote is logged or counted."""
        route: str | None = getattr(self._scope.get("route"), "path_format", None)
        return route

    @property
    def _final_status(self) -> int:
        return CLIENT_CLOSED if self._is_gone else self._status

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._is_answered:
            self._is_gone = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._request_id
            self._status, self._call_id = message["status"], headers.get("x-call-id")
            if headers.get("content-type", "").startswith(SENT_AS_THEY_COME):
                self._is_stream = True
                self._requests.begin_stream(self._route)
            # The server takes an answer for a client that has gone as well; nothing else would tell.
            if time.perf_counter() - self._began > LONG_S:
                await Request(self._scope, self.receive).is_disconnected()
        elif message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_answered = True
        await self._send(message)

    def end(self) -> None:
        """Count the request."""
        self._ended = time.perf_counter()
        if self._is_stream:
            self._requests.end_stream(self._route)
        self._requests.end(self._scope["method"], self._route, self._final_status, self._ended - self._began)

    def write_line(self) -> None:
        """Log the request, once it has ended."""
        scope, route = self._scope, self._route
        told, named = scope.get(TOLD, {}), scope.get("path_params", {})
        found = {
            **told,
            "job_id": told.get("job_id") or _canonical(named.get("job_id")),
            "call_id": self._call_id or _canonical(named.get("call_id")),
        }
        write = logger.debug if route is not None and route.startswith(PROBES) else logger.info
        write(
            "request",
            method=scope["method"][:MOST_METHOD],
            route=route,
            status=self._final_status,
            duration_ms=round((self._ended - self._began) * 1000, 1),
            **{name: value for name, value in found.items() if value is not None},
        )


def _canonical(value: Any) -> str | None:
    """An id of the path as the workers log it; None for anything else, which may be a key in the wrong place."""
    if value is None:
        return None
    try:
        return str(UUID(value))
    except ValueError:
        return None
