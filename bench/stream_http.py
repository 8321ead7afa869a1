"""Server-sent events over a kept-alive HTTP/1.1 connection, with as little of the load's own CPU as possible."""

from collections.abc import AsyncIterator, Callable

from bench.http import Connection, Refused
from bench.stream_question import STAMPED, Kind
from bench.stream_seen import Damaged, Reading, Seen

PATH = "/v1/chat/completions"
FINISHED = b'"finish_reason":"stop"'
READ_BYTES = 256 * 1024


class StreamConnection(Connection):
    """A connection on which streams are read, one at a time."""

    async def follow(self, kind: Kind, seen: Seen, begun: Callable[[], None] | None = None) -> None:
        """Ask for a stream and read it to its end. Raises Refused, or Damaged when it is not whole and in order.

        begun: told once, when its first word is there.
        """
        reading, finished, last = Reading(kind, seen), False, b""
        async for event in self._events(kind.sent_body()):
            if (stamped := STAMPED.search(event)) is not None:
                reading.chunk(float(stamped[1]), int(stamped[2]))
                if begun is not None and reading.next == 1:
                    begun()
            finished = finished or FINISHED in event
            last = event
        reading.end(finished=finished and last == b"data: [DONE]")

    async def _events(self, body: bytes) -> AsyncIterator[bytes]:
        words = f"{self._headers}Content-Type: application/json\r\nContent-Length: {len(body)}"
        head = f"POST {PATH} HTTP/1.1\r\n{words}\r\n\r\n"
        self._writer.write(head.encode() + body)
        start = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in start.split(b"\r\n", 1)[0] or b"chunked" not in start.lower():
            raise Refused(f"POST {PATH} did not answer with a stream: {start[:300].decode(errors='replace')}")
        rest = b""
        async for piece in self._pieces():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                yield event
        if rest:
            raise Damaged(f"the stream ended in the middle of an event: {rest[:100].decode(errors='replace')}")

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The body without its transfer coding, as it comes; several chunks of it at once when they are there."""
        buffer = b""
        while True:
            found: list[bytes] = []
            at = 0
            while (end := buffer.find(b"\r\n", at)) >= 0:
                size = int(buffer[at:end], 16)
                if len(buffer) < end + 2 + size + 2:
                    break
                if size == 0:
                    if found:
                        yield b"".join(found)
                    return
                found.append(buffer[end + 2 : end + 2 + size])
                at = end + 2 + size + 2
            buffer = buffer[at:]
            if found:
                yield b"".join(found)
            if not (read := await self._reader.read(READ_BYTES)):
                raise Damaged("the connection was closed in mid-stream")
            buffer += read
