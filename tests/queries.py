"""A test's own questions to a stack's database."""

import asyncio
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row


class Queries:
    """Asks on one connection, made when it is needed and again when the server has ended since the last question."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._connecting = asyncio.Lock()

    async def rows(self, query: str, params: Any = None) -> list[Any]:
        """What the query returns. Raises psycopg.OperationalError when the database cannot be reached."""
        kept = self._connection
        try:
            return await self._rows(query, params)
        except psycopg.OperationalError:
            if kept is None or not kept.closed:
                raise
            return await self._rows(query, params)

    async def aclose(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _rows(self, query: str, params: Any) -> list[Any]:
        connection = await self._connected()
        async with connection.cursor(row_factory=namedtuple_row) as cursor:
            await cursor.execute(query, params)
            return await cursor.fetchall() if cursor.description else []

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                connect = psycopg.AsyncConnection.connect
                self._connection = await connect(self._url, autocommit=True, connect_timeout=5)
            return self._connection
