"""CORS: an origin that is not listed gets no CORS header at all, and a refused preflight says why in JSON."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Send

from api.replies import JSON


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
        return JSON({"detail": bytes(response.body).decode()}, status_code=response.status_code, headers=kept)

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        """Pass a message of the answer on, its head with the headers that are due."""
        origin = request_headers.get("origin")
        if message["type"] == "http.response.start" and origin is not None and not self.is_allowed_origin(origin):
            MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)
            return
        await super().send(message, send, request_headers)
