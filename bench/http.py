"""HTTP/1.1 with as little of the load's own CPU as possible: one kept-alive connection, one request at a time."""

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import orjson


class Refused(RuntimeError):
    """The api answered with another status than the benchmark waits for."""


class Connection:
    """A connection to the api; `post` must not run twice at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]) -> None:
        self._reader, self._writer = reader, writer
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    @classmethod
    async def open(cls, port: int, headers: Mapping[str, str]) -> Self:
        """Connect to the api on this machine; headers go with every request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, {"Host": f"127.0.0.1:{port}", **headers})

    async def post(self, path: str, body: bytes, *, expect: int) -> bytes:
        """The body of the answer. Raises Refused when its status is not the expected one."""
        head = f"POST {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        status, length = _parsed(await self._reader.readuntil(b"\r\n\r\n"))
        answer = await self._reader.readexactly(length)
        if status != expect:
            raise Refused(f"POST {path} answered {status}, not {expect}: {answer[:300].decode(errors='replace')}")
        return answer

    async def post_json(self, path: str, body: Mapping[str, Any], *, expect: int = 200) -> Any:
        """The same with JSON both ways."""
        return orjson.loads(await self.post(path, orjson.dumps(body), expect=expect))

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


def _parsed(head: bytes) -> tuple[int, int]:
    """Status and length of the body; the api names the length of every body that the benchmark asks for."""
    start, *lines = head.split(b"\r\n")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(start.split(b" ", 2)[1]), int(value)
    raise Refused(f"the api answered without Content-Length: {start.decode(errors='replace')}")
