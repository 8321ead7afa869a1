"""The receivers of the webhook benchmark, in a process of their own: /ok answers, /slow after 5 s, /dead never.

python -m bench.webhook_receiver       prints its port; GET /take gives what came since the last time.
"""

import asyncio
import sys
import time

import orjson

SLOW_S = 5.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LENGTH, ID = b"content-length: ", b"webhook-id: "
CREATED = b'"timestamp":"'
CREATED_BYTES = 24


class Receiver(asyncio.Protocol):
    """One connection; what came on any is kept in `seen`: path, webhook-id, time of the fact, unix seconds now."""

    seen: list[tuple[str, str, str, float]] = []  # noqa: RUF012 - one list for all connections

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, rest = self._buffer[:end], self._buffer[end + 4 :]
            length = int(_field(head.lower(), LENGTH) or 0)
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        now, path = time.time(), head.split(b" ", 2)[1].decode()
        if path == "/take":
            told, Receiver.seen = Receiver.seen, []
            self._write(_json(orjson.dumps(told)))
            return
        at = body.find(CREATED) + len(CREATED)
        Receiver.seen.append((path, _field(head, ID).decode(), body[at : at + CREATED_BYTES].decode(), now))
        if path.startswith("/ok"):
            self._write(OK)
        elif path.startswith("/slow"):
            asyncio.get_running_loop().call_later(SLOW_S, self._write, OK)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


def _field(head: bytes, name: bytes) -> bytes:
    at = head.find(name)
    return head[at + len(name) : (head + b"\r\n").find(b"\r\n", at)] if at >= 0 else b""


def _json(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
