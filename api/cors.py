"""CORS: an origin that is not listed gets no CORS header at all, and a refused preflight says why in JSON."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.gateway.face import KEY_HEADERS, face_of
from api.gateway.headers import NAMES
from shared.errors import RoutingError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SDK_HEADERS = tuple(
    f"X-Stainless-{name}"
    for name in ("Arch", "Async", "Helper-Method", "Lang", "OS", "Package-Version", "Retry-Count", "Runtime",
                 "Runtime-Version", "Timeout")
)  # fmt: skip
"""What OpenAI's clients tell of themselves; nobody reads it, but in a browser a preflight asks for it."""
REQUEST_HEADERS = (
    "Authorization", "X-Admin-Key", "Idempotency-Key", "Prefer", "If-None-Match", "If-Range", "Range", "Last-Event-ID",
    "X-Request-ID",
    "X-Job-Id", "Content-Type", "X-Litellm-Call-Id", "OpenAI-Organization",
    "OpenAI-Project", "OpenAI-Beta", *KEY_HEADERS, *SDK_HEADERS,
)  # fmt: skip
EXPOSED = (
    "Accept-Ranges", "Allow", "Cache-Control", "Content-Disposition", "Content-Range", "ETag", "Idempotent-Replayed",
    "Link", "Location", "Preference-Applied", "Vary",
    "WWW-Authenticate", "X-Accel-Buffering", "X-Next-After", "X-Request-ID", "X-Total-Count", *NAMES,
)  # fmt: skip


class Cors(CORSMiddleware):
    """Starlette's, which names methods and headers also to those it refuses."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """200 for a listed origin that asks for what it may; else 400."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        listed = self.is_allowed_origin(request_headers["origin"])
        kept = {
            name: value
            for name, value in response.headers.items()
            if name == "vary" or (listed and name.startswith("access-control-"))
        }
        return _Refusal(RoutingError(response.status_code, bytes(response.body).decode(), headers=kept))

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        """Pass a message of the answer on, its head with the headers that are due."""
        origin = request_headers.get("origin")
        if message["type"] == "http.response.start" and origin is not None and not self.is_allowed_origin(origin):
            MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)
            return
        await super().send(message, send, request_headers)


class _Refusal(Response):
    """A preflight that is refused, in the dialect of its path."""

    def __init__(self, error: RoutingError) -> None:
        super().__init__(status_code=error.status)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await face_of(scope["path"]).refusal(Request(scope), self._error)(scope, receive, send)
