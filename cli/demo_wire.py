"""The demo provider's side of one HTTP exchange, down to the TCP connection that plain ASGI cannot break."""

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]

LINGER_NONE = struct.pack("ii", 1, 0)


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


class OpenProtocol(HttpToolsProtocol):
    """Uvicorn's protocol that shows the application its transport and does not wait for answers when it stops."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"tcp": {"transport": self.transport}}

    def shutdown(self) -> None:
        self.transport.abort()


@dataclass(slots=True)
class Wire:
    """One request and its answer; every method raises ClientGone once the client hung up."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def transport(self) -> asyncio.Transport:
        return cast(asyncio.Transport, self.scope["extensions"]["tcp"]["transport"])

    async def read(self) -> bytes:
        parts = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts) if len(parts) > 1 else cast(bytes, parts[0])

    async def gone(self) -> None:
        """Wait for the client to hang up: after the body nothing else arrives. Never returns."""
        while True:
            if (await self.receive())["type"] == "http.disconnect":
                raise ClientGone

    async def pause(self, limit: asyncio.Timeout) -> None:
        """Wait until the limit runs out."""
        try:
            async with limit:
                await self.gone()
        except TimeoutError:
            return

    async def start(self, status: int, headers: Headers) -> None:
        if self.transport.is_closing():
            raise ClientGone
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes, *, last: bool) -> None:
        if self.transport.is_closing():
            raise ClientGone
        await self.send({"type": "http.response.body", "body": piece, "more_body": not last})

    async def cut(self) -> None:
        """Close the connection after what was written so far."""
        self.transport.close()
        await self._closed()

    async def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self.transport.abort()
        await self._closed()

    async def _closed(self) -> None:
        try:
            await self.gone()
        except ClientGone:
            return
