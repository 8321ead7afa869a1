"""One HTTP/1.1 connection of the webhook sender: a request out, the answer's head and the start of its body in."""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import cast

import httptools

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 20_000
MAX_KEPT_BYTES = 1_000


class HeadTooLarge(Exception):
    """The head of an answer is over MAX_HEAD_BYTES."""


class Reply:
    """One answer while it comes in; the parser calls the `on_` methods.

    head: done when the head is there (result None), or with the error that ended the connection before it was.
    body: done when the body is there, cut off at its limit, or ended with its connection.
    """

    __slots__ = ("_fed", "_limit", "_parser", "body", "first_byte_at", "head", "headers", "kept", "reusable", "status")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.head: asyncio.Future[Exception | None] = loop.create_future()
        self.body: asyncio.Future[None] = loop.create_future()
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.kept = b""
        self.first_byte_at: float | None = None
        self.reusable = False
        self._parser = httptools.HttpResponseParser(self)
        self._fed = 0
        self._limit = MAX_HEAD_BYTES

    def feed(self, data: bytes) -> bool:
        """Take what came; False when nothing more may be read from this connection."""
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.end(error)
        else:
            if self._fed > self._limit:
                self.end(HeadTooLarge())
        return self.reusable or not self.body.done()

    def end(self, error: Exception | None) -> None:
        """No more will come; a body that was still open counts as whole."""
        self.reusable = False
        if not self.head.done():
            self.head.set_result(None if self.status is not None else error or ConnectionError())
        if not self.body.done():
            self.body.set_result(None)

    def on_message_begin(self) -> None:
        if self.body.done():
            self.reusable = False  # bytes after the answer: whose they are cannot be known

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status is None:  # later ones are trailers
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.status is not None:
            return
        if 100 <= status < 200 and status != 101:
            self.headers.clear()
            return
        self.status = status
        self._limit = self._fed + MAX_BODY_BYTES
        if not self.head.done():
            self.head.set_result(None)

    def on_body(self, chunk: bytes) -> None:
        self.kept += chunk[: MAX_KEPT_BYTES - len(self.kept)]

    def on_message_complete(self) -> None:
        if self.status is None or self.body.done():
            return
        self.reusable = self._parser.should_keep_alive() and self.status != 101
        self.body.set_result(None)


class Connection(asyncio.Protocol):
    """A connection that serves one request at a time. What comes while it is idle closes it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.when_lost: Callable[[], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reply is None or not self._reply.feed(data):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport, self._error = None, exc
        if self._reply is not None:
            self._reply.end(exc)
        if self.when_lost is not None:
            self.when_lost()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> Reply:
        """Send a request; the reply fills up by itself."""
        reply = self._reply = Reply(asyncio.get_running_loop())
        if self._transport is None or self._transport.is_closing():
            reply.end(self._error)
        else:
            self._transport.write(request)
        return reply

    def rest(self) -> bool:
        """Whether the connection may serve another request: the answer was whole, and so was what we sent."""
        reply, self._reply = self._reply, None
        if self._transport is None or self._transport.is_closing() or reply is None or not reply.reusable:
            return False
        return self._transport.get_write_buffer_size() == 0

    def abort(self) -> None:
        """Close at once; what was not sent yet is dropped."""
        if self._transport is not None:
            self._transport.abort()


async def connect(address: str, port: int, *, tls: ssl.SSLContext | None, name: str) -> Connection:
    """A new connection to exactly this address. Raises OSError (ssl.SSLError of TLS).

    tls, name: verify the peer for this name, and send it as SNI; None is plain HTTP.
    """
    loop = asyncio.get_running_loop()
    if tls is None:
        _, connection = await loop.create_connection(Connection, address, port)
    else:
        _, connection = await loop.create_connection(Connection, address, port, ssl=tls, server_hostname=name)
    return connection
