"""A webhook receiver on a real socket: it keeps what came and answers with the bytes the test gives it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as it came off the wire; `connection` counts the receiver's connections from 1."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int
    sni: str | None


@dataclass
class Receiver:
    """`answers` are used up in order, the last one stays. `arrived` is released once per request."""

    port: int = 0
    answers: list[bytes | Answer] = field(default_factory=lambda: [response(200)])
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def url(self, path: str = "/hook", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while True:
                self.received.append(
                    await _request(reader, number, getattr(writer.get_extra_info("ssl_object"), "sni", None))
                )
                self.arrived.release()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()


async def _request(reader: asyncio.StreamReader, connection: int, sni: str | None) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(line=head[0], headers=headers, body=body, connection=connection, sni=sni)


def response(status: int, *, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an answer; header names take `_` for `-`."""
    lines = [f"HTTP/1.1 {status} Answer", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def never(writer: asyncio.StreamWriter) -> None:
    """No answer, until the sender goes away."""
    await asyncio.Event().wait()


@asynccontextmanager
async def receiving(*answers: bytes | Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free loopback port."""
    receiver = Receiver()
    if answers:
        receiver.answers = list(answers)
    if tls is not None:
        tls.sni_callback = lambda socket, name, _: setattr(socket, "sni", name)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
