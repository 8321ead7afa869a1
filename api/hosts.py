"""Which `Host` a request may name: others are refused before anything looks at them."""

from collections.abc import Sequence

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gateway.face import face_of
from shared.errors import RoutingError


class Hosts:
    """ASGI middleware. allowed: names, `*.example.com` for all below one, `*` for any."""

    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        self.app = app
        self._allows_any = "*" in allowed
        self._names = {name.lower() for name in allowed if not name.startswith("*.")}
        self._endings = tuple(name[1:].lower() for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400 in the dialect of its path."""
        if scope["type"] != "http" or self._allows_any or self._is_allowed(Request(scope)):
            await self.app(scope, receive, send)
            return
        refusal = RoutingError(400, "Invalid host header")
        await face_of(scope["path"]).refusal(Request(scope), refusal)(scope, receive, send)

    def _is_allowed(self, request: Request) -> bool:
        try:
            host = (URL(f"http://{request.headers.get('host', '')}").hostname or "").lower()
        except ValueError:
            return False
        return host in self._names or bool(self._endings and host.endswith(self._endings))
