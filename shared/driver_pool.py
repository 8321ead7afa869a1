"""The driver's own connections: made when they are needed, the last used first, thrown away when one broke.

Own, because a pool that reconnects in the background waits longer and longer between its attempts: the database would
be back and requests still refused. Here the next request asks again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

Connection = AsyncConnection[Any]

LATE_S = 0.1
"""A limit of time that is noticed so late says nothing about the others."""


class DriverPool:
    """At most `size` connections. wait_s: how long to wait for one that others use; then TimeoutError."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, wait_s: float) -> None:
        self._connect = connect
        self._wait_s = wait_s
        self._room = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._is_closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection that nobody else uses; it is used again unless it was left in the middle of something."""
        if self._room.locked():
            await self._wait()
        else:
            await self._room.acquire()
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                await self._take_back(connection)
        finally:
            self._room.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s) as limit:
                await self._room.acquire()
        except TimeoutError:
            late_s = asyncio.get_running_loop().time() - (limit.when() or 0.0)
            if late_s < LATE_S:
                raise
            # The time passed while this process stood still: those who have the connections could not go on either.
            async with asyncio.timeout(self._wait_s):
                await self._room.acquire()

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it comes back."""
        self._is_closed = True
        await self._close_idle()

    async def _take_back(self, connection: Connection) -> None:
        if connection.closed:
            # What broke this one, a restart perhaps, broke the others as well.
            await self._close_idle()
        elif self._is_closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            await connection.close()
        else:
            self._idle.append(connection)

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
