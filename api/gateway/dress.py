"""What every answer of the gateway carries, put on when its first byte leaves: success, error or stream."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.gateway import headers, paths
from api.request_id import REQUEST_ID


class Dress:
    """ASGI middleware; outside of all that may answer, inside of `RequestId`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; its answer gets the headers."""
        if scope["type"] != "http" or not paths.is_ours(scope["path"]):
            await self.app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_due(scope))
            await send(message)

        await self.app(scope, receive, dressed)


def _due(scope: Scope) -> dict[str, str]:
    """The request's id, and of a route that was found where the answer comes from, when, and what was learned."""
    found = {"X-Olla-Request-ID": scope[REQUEST_ID], **headers.SERVED_BY}
    if "route" in scope:
        found |= {**headers.FOUND, **headers.response_time(scope), **headers.learned(scope)}
    return found
