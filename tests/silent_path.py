"""A way to a server that can fall silent: what is sent on it is still acknowledged, and nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class SilentPath:
    """`url` leads through it. connections: so many were opened on it."""

    url: str
    connections: int = 0
    talking: set[asyncio.StreamWriter] = field(default_factory=set)

    def fall_silent(self) -> None:
        """Nobody says anything more on what is open now; new connections are well."""
        self.talking.clear()


@asynccontextmanager
async def path_to(url: str) -> AsyncIterator[SilentPath]:
    """A path to a server on this machine."""
    there = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path.talking.add(writer)
        try:
            while said := await reader.read(65536):
                if writer in path.talking:
                    writer.write(said)
        except OSError:
            pass
        finally:
            writer.close()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path.connections += 1
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        for way in (carry(reader, far_writer), carry(far_reader, writer)):
            tasks.add(asyncio.create_task(way))

    server = await asyncio.start_server(opened, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = SilentPath(url.replace(f"{there.hostname}:{there.port}", f"127.0.0.1:{port}"))
    yield path
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
